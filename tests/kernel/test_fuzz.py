"""Whatever the bytes, only errors of this package come out, and what is accepted is safe to plan with."""

from __future__ import annotations

import random

from hypothesis import example, given
from hypothesis import strategies as st

from elfwriter import BzImage, Elf, Load, Section, entry_note, note, notes, pack
from pvh.errors import NotAKernel
from pvh.kernel.banner import with_banner
from pvh.kernel.oddities import draft_c
from pvh.kernel.read import read_source
from pvh.kernel.source import BytesSource

CODECS = ("gzip", "bzip2", "xz", "lzma", "lz4", "zstd")
EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 0xFF, 0xFFF, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFC, 0xFFFFFFFF)
u32s = st.sampled_from(EDGES) | st.integers(0, 0xFFFFFFFF)
u64s = u32s | st.sampled_from((1 << 32, 1 << 63, (1 << 64) - 1, (1 << 64) - 0x1000)) | st.integers(0, (1 << 64) - 1)

FEATURE_NOTE = note(10, b"!writable_page_tables|dom0|new\0")
RECORDS = entry_note() + FEATURE_NOTE + note(17, b"\1\0\0\0") + note(11, b"yes\0") + note(19, b"\0\0\x20\0")
ELFS = [
    Elf((Load(), notes(RECORDS)), (Section(".symtab", bytes(48), 2, link=2), Section("n", RECORDS, 7)), bits).build()
    for bits in (32, 64)
]
SEEDS = [*ELFS, *(BzImage(pack(codec, ELFS[1])).build() for codec in CODECS), pack("gzip", ELFS[0])]


def judge(data: bytes) -> None:
    """Read a file; an accepted one keeps the promises that the planner builds on."""
    try:
        kernel = read_source(BytesSource("fuzzed", data))
    except NotAKernel:
        return
    draft_c(with_banner(kernel))
    assert kernel.source.size <= 1 << 30
    if kernel.bootable:
        assert kernel.entry is not None
        assert kernel.start <= kernel.entry <= kernel.end < 1 << 64
        assert kernel.start % 4096 == 0
        for segment in kernel.loads:
            assert segment.filesz <= segment.memsz
            assert segment.offset + segment.filesz <= kernel.source.size


@given(st.binary(max_size=4096))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    judge(data)


@given(
    st.sampled_from((b"\x7fELF\1\1", b"\x7fELF\2\1", b"\x1f\x8b\x08", b"MZ", b"!<arch>\n", b"<")),
    st.binary(max_size=999),
)
def test_any_bytes_behind_a_magic(magic: bytes, data: bytes) -> None:
    judge(magic + data)


@given(
    st.sampled_from(SEEDS), st.integers(0, 1 << 16), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)))
)
def test_any_damage(data: bytes, end: int, changes: list[tuple[int, int]]) -> None:
    body = bytearray(data)
    for at, value in changes:
        body[at % len(body)] = value
    judge(bytes(body[: end % (len(body) + 1)]) if end % 3 == 0 else bytes(body))


@given(st.sampled_from(CODECS), st.binary(max_size=600), u32s)
def test_any_payload(codec: str, damage: bytes, promise: int) -> None:
    """The first bytes are right, so that the decoder runs; the promised size may be anything."""
    stream = pack(codec, ELFS[1])[:-4]
    keep = len(damage) * 7 % len(stream)
    judge(BzImage(stream[: max(8, keep)] + damage + min(promise, 1 << 22).to_bytes(4, "little")).build())
    judge(
        BzImage(stream[: max(8, keep)] + damage + promise.to_bytes(4, "little")).build() if promise > 1 << 30 else b""
    )


loads = st.builds(
    Load,
    paddr=u64s,
    memsz=u64s,
    flags=st.integers(0, 15),
    type=st.sampled_from((0, 1, 1, 1, 3, 4)),
    align=u64s,
    offset=st.none() | u64s,
    filesz=st.none() | u64s,
)
record = st.builds(
    note,
    st.integers(0, 25) | u32s,
    st.binary(max_size=80),
    st.sampled_from((b"Xen\0", b"Xen\0", b"GNU\0", b"Linux\0", b"", b"Xen")),
)
headers = st.dictionaries(
    st.sampled_from(("phentsize", "phnum", "shentsize", "shnum", "shstrndx", "machine", "type")), st.integers(0, 200)
) | st.dictionaries(st.sampled_from(("phoff", "shoff")), u64s)


@given(st.lists(loads, max_size=4), st.lists(record, max_size=6), st.binary(max_size=20), headers)
def test_any_tables(segments: list[Load], records: list[bytes], tail: bytes, header: dict[str, int]) -> None:
    data = b"".join(records) + tail
    sections = (Section(".note", data, 7), Section(".symtab", b"12", 2, link=1))
    judge(Elf((*segments, notes(data)), sections, header=header).build())
    judge(Elf(tuple(segments), sections, header=header).build())


@given(st.lists(st.tuples(u32s, u32s, st.integers(0, 20), st.binary(max_size=40)), max_size=8))
def test_any_note_sizes(rows: list[tuple[int, int, int, bytes]]) -> None:
    data = b"".join(
        namesz.to_bytes(4, "little") + descsz.to_bytes(4, "little") + number.to_bytes(4, "little") + b"Xen\0" + desc
        for namesz, descsz, number, desc in rows
    )
    judge(Elf((Load(), notes(data))).build())


@given(st.integers(0, 1 << 30))
def test_a_file_cut_anywhere(seed: int) -> None:
    """Every truncation of every container is refused or read, never a traceback."""
    data = random.Random(seed).choice(SEEDS)
    judge(data[: seed % len(data)])
