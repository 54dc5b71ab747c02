"""What is no kernel is named for what it is; what is damaged says where and how."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import types
import zlib

import pytest

from elfwriter import BzImage, lz4_legacy, lzop, pack, u32
from kernel.refusals import CASES, PLAIN, Refusal
from pvh.errors import NotAKernel
from pvh.kernel import codec
from pvh.kernel.container import guess
from pvh.kernel.naming import KINDS
from pvh.kernel.read import read_source
from pvh.kernel.record import Kernel
from pvh.kernel.source import BytesSource


class FakeLzo(types.ModuleType):
    """The interface of python-lzo over zlib: what is proved here is the frame around the blocks."""

    error = zlib.error

    @staticmethod
    def decompress(block: bytes, header: bool, size: int) -> bytes:  # noqa: FBT001 - python-lzo's own signature
        assert not header
        return zlib.decompress(block, bufsize=size)


@pytest.fixture
def lzo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzo", FakeLzo("lzo"))


def read(data: bytes) -> Kernel:
    return read_source(BytesSource("some file", data))


@pytest.mark.usefixtures("lzo")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_refusal(case: Refusal) -> None:
    with pytest.raises(NotAKernel) as caught:
        read(case.data)
    error = caught.value
    assert error.cause.startswith(case.cause)
    assert error.path == "some file"
    assert case.found in (None, error.found)
    assert case.offset in (None, error.offset)
    assert case.hint in ("", error.hint)


def test_every_kind_has_a_case() -> None:
    told = {case.cause.removeprefix("is ").removeprefix("gzip data that holds ") for case in CASES}
    assert [kind.name for kind in KINDS if not any(kind.name.startswith(name) for name in told)] == []


@pytest.mark.parametrize("name", ["bzip2", "xz", "lzma", "lz4", "zstd"])
def test_a_bomb_is_told_before_a_byte_is_unpacked(name: str) -> None:
    """A payload whose true size is a hundred times its promise costs its decoder's own tables, and the promise."""
    zeroes = pack(name, bytes(40 << 20))
    lying = BzImage(zeroes[:-4] + u32(400 << 10)).build()
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(NotAKernel, match="damaged or cut short"):
            read(lying)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_cut_at_its_own_promise() -> None:
    bomb = pack("gzip", bytes(40 << 20))
    with pytest.raises(NotAKernel, match="more than 4096 bytes"):
        read(bomb[:-4] + u32(4096))


def test_the_limit_itself_passes() -> None:
    """XC_DOM_DECOMPRESS_MAX is the most that is unpacked, not the first that is refused."""
    promise = BzImage(pack("xz", PLAIN)[:-4] + u32(codec.LIMIT)).build()
    with pytest.raises(NotAKernel, match="damaged or cut short"):
        read(promise)


def test_a_zstd_frame_that_promises_another_size_is_not_believed() -> None:
    import zstandard

    frame = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    with pytest.raises(NotAKernel, match="its frame says 1048576 bytes"):
        read(BzImage(frame + u32(4096)).build())


def test_a_zstd_frame_that_knows_its_size_is_read() -> None:
    import zstandard

    frame = zstandard.ZstdCompressor().compress(PLAIN)
    assert read(BzImage(frame + u32(len(PLAIN))).build()).bootable


def test_lz4_blocks_hold_8_mib_each() -> None:
    large = PLAIN + bytes((9 << 20) - len(PLAIN))
    assert read(BzImage(lz4_legacy(large) + u32(len(large))).build()).source.size == 9 << 20
    with pytest.raises(NotAKernel, match="damaged or cut short"):
        read(BzImage(lz4_legacy(large, block=9 << 20) + u32(len(large))).build())


def test_lz4_frames_may_follow_one_another() -> None:
    frames = lz4_legacy(PLAIN[:100]) + lz4_legacy(PLAIN[100:])
    assert read(BzImage(frames + u32(len(PLAIN))).build()).bootable


@pytest.mark.usefixtures("lzo")
@pytest.mark.parametrize(
    ("version", "flags", "name"), [(0x1040, 0, b""), (0x0940, 0, b""), (0x0930, 0, b"vmlinux"), (0x1040, 0x800, b"v")]
)
def test_lzo_headers_old_and_new(version: int, flags: int, name: bytes) -> None:
    half = len(PLAIN) // 2
    blocks = [(half, zlib.compress(PLAIN[:half])), (len(PLAIN) - half, PLAIN[half:])]
    stream = lzop(blocks, version=version, flags=flags, name=name)
    kernel = read(BzImage(stream + u32(len(PLAIN))).build())
    assert [layer.format for layer in kernel.layers] == ["bzImage", "lzo", "ELF64"]
    assert kernel.bootable


@pytest.mark.usefixtures("lzo")
@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        ([(len(PLAIN) + 1, b"x" * 9)], f"a block of 9 bytes says it unpacks to {len(PLAIN) + 1}"),
        ([(len(PLAIN), PLAIN), (1, b"x")], "a block of 1 bytes says it unpacks to 1"),  # more than was promised
        ([(9, b"x" * 10)], "a block of 10 bytes says it unpacks to 9"),
        ([(9, b"")], "a block of 0 bytes says it unpacks to 9"),
        ([(9, b"x" * 8)], "Error -3 while decompressing data: incorrect header check"),
        ([(9, b"x" * 9)], "9 bytes"),  # less in all than was promised
    ],
)
def test_lzo_blocks_out_of_order(blocks: list[tuple[int, bytes]], found: str) -> None:
    with pytest.raises(NotAKernel, match="its lzo data is damaged") as caught:
        read(BzImage(lzop(blocks) + u32(len(PLAIN))).build())
    assert caught.value.found == found


@pytest.mark.usefixtures("lzo")
@pytest.mark.parametrize("flags", [0, 0x800])
def test_lzo_cut_anywhere(flags: int) -> None:
    """Header, block head, block, end mark: wherever the stream ends too early, it is told."""
    stream = lzop([(len(PLAIN), zlib.compress(PLAIN))], flags=flags, name=b"vmlinux")
    for size in range(9, len(stream)):
        with pytest.raises(NotAKernel, match="its last block is cut short"):
            read(BzImage(stream[:size] + u32(len(PLAIN))).build())


@pytest.mark.parametrize(
    ("data", "container"),
    [(pack("gzip", b""), "gzip"), (BzImage(b"").build(), "bzimage"), (PLAIN[:20], "elf"), (b"text", None), (b"", None)],
)
def test_a_guess_at_the_container(data: bytes, container: str | None) -> None:
    assert guess(BytesSource("file", data)) == container


def test_lzo_names_the_library_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzo", None)
    with pytest.raises(NotAKernel, match="pip install python-lzo"):
        read(BzImage(lzop([(3, b"abc")]) + u32(3)).build())
