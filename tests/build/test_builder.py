"""build: mapped, read or copied, the guest's RAM is the same to the byte."""

from __future__ import annotations

import io
import os
import pathlib
import random
import subprocess
import sys
import tempfile
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.plans import INFO, RAM, file_source, plan
from pvh.build import builder, sigbus
from pvh.build.builder import build, changed_files
from pvh.build.image import Image
from pvh.build.start_info import start_info_pieces
from pvh.errors import EngineError, UsageError
from pvh.kernel.source import BytesSource, FileSource, Source, identify
from pvh.plan.options import BootOptions
from pvh.plan.record import Content, FileBytes, LiteralBytes, Plan

COPY = BootOptions(abi="v0", copy=True)
MAP = BootOptions(abi="v0")
BIG = bytes(range(256)) * 8192  # 2 MiB


def memory(image: Image) -> bytes:
    found = b"".join(bytes(block.view) for block in image.ram.blocks)
    image.ram.close()
    return found


def reference(made: Plan) -> bytes:
    """RAM as the ABI wants it, computed the plain way: zeroes, then each content at its place."""
    ram = bytearray(RAM)
    for piece in made.ranges:
        data = b""
        if isinstance(piece.content, FileBytes):
            data = piece.content.source.read(piece.content.offset, min(piece.content.count, piece.size))
        elif piece.content:
            data = piece.content.data
        ram[piece.start : piece.start + len(data)] = data
    for paddr, data in start_info_pieces(made):
        ram[paddr : paddr + len(data)] = data
    return bytes(ram)


def test_mapping_reading_and_copying_from_memory_give_the_same_bytes(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", BIG)
    ways: list[tuple[Source, BootOptions]] = [(source, MAP), (source, COPY), (BytesSource("k", BIG), MAP)]
    images: list[Image] = []
    for content, options in ways:
        # The second range starts and ends inside pages, with .bss behind it: only its inner pages can be mapped.
        parts: list[tuple[int, int, Content]] = [
            (0x100000, 0x180000, FileBytes(content, 0, 0x180000)),
            (0x400123, 0x200000, FileBytes(content, 0x123, 0x1F8000)),
        ]
        images.append(build(plan(*parts, options=options)))
    assert [image.mapped for image in images] == [0x180000 + 0x1F7000, 0, 0]
    wanted = reference(images[0].plan)
    assert [memory(image) == wanted for image in images] == [True] * 3


@cache
def shared_file() -> FileSource:
    with tempfile.TemporaryFile() as stream:
        stream.write(random.Random(1).randbytes(0x6789))
        stream.flush()
        fd = os.dup(stream.fileno())
    return FileSource("shared", fd, identify(fd))


@given(
    gpa=st.integers(0x100000, 0x105000),
    offset=st.integers(0, 0x5000),
    shift=st.booleans(),
    count=st.integers(0, 0x8000),
    bss=st.integers(0, 0x3000),
)
def test_any_placement_is_the_same_mapped_and_read(gpa: int, offset: int, shift: bool, count: int, bss: int) -> None:  # noqa: FBT001
    if shift:
        offset = offset & -4096 | gpa & 4095  # so that pages meet
    source = shared_file()
    made = [
        plan((gpa, count + bss, FileBytes(source, offset, count)), (0x200000, 16, LiteralBytes(b"behind")), options=way)
        for way in (MAP, COPY)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "MAP_FROM", 1)
        mapped, read = build(made[0]), build(made[1])
    whole = max(0, (gpa + min(count, source.size - offset)) // 4096 - -(-gpa // 4096)) * 4096
    assert mapped.mapped == (whole if (offset - gpa) % 4096 == 0 else 0)
    wanted = reference(made[0])
    assert memory(mapped) == wanted
    assert memory(read) == wanted


def test_bytes_behind_the_files_end_are_zero(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", b"\xff" * 0x180800)
    image = build(plan((0x100000, 0x200000, FileBytes(source, 0, 0x200000))))
    assert image.mapped == 0x180000
    assert image.ram.read(0x2807F0, 0x20) == b"\xff" * 16 + bytes(16)
    image.ram.close()


def test_what_the_guest_writes_stays_out_of_the_file(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", BIG)
    image = build(plan((0x100000, len(BIG), FileBytes(source, 0, len(BIG)))))
    assert image.mapped == len(BIG)
    image.ram.write(0x100000, b"guest")
    assert source.read(0, 5) == BIG[:5]
    assert changed_files(image) == ()
    image.ram.close()


def test_small_files_are_read_and_no_handler_is_installed(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", b"x" * 0x3000)
    image = build(plan((0x100000, 0x3000, FileBytes(source, 0, 0x3000))))
    assert (image.mapped, image.notes) == (0, ())
    assert image.files == (source,)
    image.ram.close()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_read_and_the_image_says_so(tmp_path: pathlib.Path, mode: int) -> None:
    source = file_source(tmp_path / "k", BIG, mode)
    image = build(plan((0x100000, len(BIG), FileBytes(source, 0, len(BIG)))))
    assert image.mapped == 0
    assert image.notes == (f"{source.path}: read, not mapped, as other users may write it",)
    image.ram.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_read(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", BIG)
    os.fchown(source.fd, 12345, 0)
    image = build(plan((0x100000, len(BIG), FileBytes(file_source(source.path), 0, len(BIG)))))
    assert image.mapped == 0
    image.ram.close()


def test_a_host_that_cannot_survive_a_cut_file_reads(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sigbus, "_native", lambda: None)
    source = file_source(tmp_path / "k", BIG)
    image = build(plan((0x100000, len(BIG), FileBytes(source, 0, len(BIG)))))
    assert image.mapped == 0
    assert "cannot map it and survive its cut" in image.notes[0]
    assert image.ram.read(0x100000, len(BIG)) == BIG
    image.ram.close()


def test_start_info_stands_where_the_plan_says() -> None:
    image = build(plan())
    assert image.ram.read(INFO, 4) == bytes.fromhex("78c56e33")
    assert image.entry.gprs[3] == INFO
    image.ram.close()


def test_a_file_rewritten_before_the_build_is_refused(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", BIG)
    os.truncate(source.path, 100)
    with pytest.raises(UsageError, match="changed since the kernel was planned"):
        build(plan((0x100000, len(BIG), FileBytes(source, 0, len(BIG)))))


def test_a_file_cut_after_the_build_is_named_with_both_sizes(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", BIG)
    image = build(plan((0x100000, len(BIG), FileBytes(source, 0, len(BIG)))))
    os.truncate(source.path, 0x1000)
    assert changed_files(image) == (f"{source.path} was cut from {len(BIG)} to 4096 bytes",)
    assert image.ram.read(0x101000, 0x2000) == bytes(0x2000)
    assert changed_files(image)[1] == "2 pages that were cut turned to zeroes in the guest"
    image.ram.close()


def test_a_file_rewritten_in_place_is_named(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", BIG)
    image = build(plan((0x100000, len(BIG), FileBytes(source, 0, len(BIG)))))
    os.utime(source.path, ns=(1, 1))
    assert changed_files(image) == (f"{source.path} was rewritten",)
    image.ram.close()


def test_a_file_that_stops_being_readable_is_a_usage_error(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", b"x" * 100)
    write_only = os.open(source.path, os.O_WRONLY)
    os.dup2(write_only, source.fd)
    os.close(write_only)
    with pytest.raises(UsageError, match="cannot read it: bad file descriptor"):
        build(plan((0x100000, 100, FileBytes(source, 0, 100))))


def test_a_file_cut_between_plan_and_read_leaves_zeroes(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", b"x" * 8192)
    os.truncate(source.path, 4096)
    view = memoryview(bytearray(8192))
    builder._read_into(source, 0, view)
    assert bytes(view) == b"x" * 4096 + bytes(4096)


def test_more_to_copy_than_the_host_has_is_refused_before_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_CHECK_FROM", 0)
    monkeypatch.setattr(builder, "_available_memory", lambda: 1 << 20)
    with pytest.raises(EngineError, match="too little memory for the kernel and its modules"):
        build(plan((0x100000, len(BIG), FileBytes(BytesSource("k", BIG), 0, len(BIG)))))


def test_a_small_file_that_others_may_write_needs_no_note(tmp_path: pathlib.Path) -> None:
    source = file_source(tmp_path / "k", b"x" * 100, 0o666)
    image = build(plan((0x100000, 100, FileBytes(source, 0, 100))))
    assert image.notes == ()
    image.ram.close()


def test_the_hosts_available_memory_is_known() -> None:
    assert 0 < builder._available_memory() < 1 << 60


@pytest.mark.parametrize("meminfo", [None, b"MemTotal: 5 kB\n"])
def test_a_host_that_does_not_say_has_no_limit(monkeypatch: pytest.MonkeyPatch, meminfo: bytes | None) -> None:
    def other_proc(*_: object) -> io.BytesIO:
        if meminfo is None:
            raise FileNotFoundError
        return io.BytesIO(meminfo)

    monkeypatch.setattr("builtins.open", other_proc)
    assert builder._available_memory() == 1 << 64


def test_64_gib_planned_on_a_small_host_are_free_until_touched() -> None:
    image = build(plan(backed=((0, 0xFC000000), (1 << 32, 64 << 30))))
    assert image.ram.write((1 << 32) + (63 << 30), b"far")
    image.ram.close()


def test_a_host_without_address_space_is_an_engine_error() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from build.plans import plan; from pvh.build.builder import build\n"
        "build(plan(backed=((0, 1 << 20), (1 << 32, 4 << 30))))"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={"PYTHONPATH": paths}
    )
    assert "EngineError: the host cannot give the guest 4096 MiB of memory" in ran.stderr
