"""Cores: gABI chapter "Program Header"; NT_PRSTATUS as linux/elfcore.h and asm/user_64.h have it; gdb as the judge."""

from __future__ import annotations

import re
import resource
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from build.tables import CODE32, LONG, Tables
from pvh.build.cpu_state import GPR_NAMES, CpuState, SegmentRegister
from pvh.build.ram import GuestRam
from pvh.core import PT_LOAD, PT_NOTE, PT_PVH_RAM, write_core
from pvh.errors import UsageError
from pvh.outcome import Outcome

MIB = 1 << 20
HIGH = 0xFFFFFFFF81000000
USER_REGS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
CODE = bytes.fromhex("b878563412 0f01c1 f4")  # mov $0x12345678, %eax; vmcall; hlt


@dataclass(frozen=True)
class Header:
    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


@dataclass(frozen=True)
class Core:
    """A core read by the gABI, independently of the writer."""

    data: bytes

    @property
    def headers(self) -> list[Header]:
        phoff, phentsize, phnum = (
            *struct.unpack_from("<Q", self.data, 32), *struct.unpack_from("<HH", self.data, 54)
        )  # fmt: skip
        return [Header(*struct.unpack_from("<IIQQQQQQ", self.data, phoff + i * phentsize)) for i in range(phnum)]

    def of(self, kind: int) -> list[Header]:
        return [header for header in self.headers if header.type == kind]

    def read(self, vaddr: int, size: int) -> bytes:
        for header in self.of(PT_LOAD):
            if header.vaddr <= vaddr and vaddr + size <= header.vaddr + header.filesz:
                return self.data[header.offset + vaddr - header.vaddr :][:size]
        raise AssertionError(f"{vaddr:#x} is in no segment")

    def prstatus(self) -> bytes:
        (header,) = self.of(PT_NOTE)
        namesz, descsz, kind = struct.unpack_from("<III", self.data, header.offset)
        assert (namesz, kind) == (5, 1)
        assert self.data[header.offset + 12 :][:8] == b"CORE\0\0\0\0"
        assert header.filesz == 20 + descsz
        return self.data[header.offset + 20 :][:descsz]


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    made = GuestRam(((0, 16 * MIB), (0xFC000000, 0x3000)))
    made.write(0x100000, CODE)
    made.write(0xFC001000, b"RSD PTR ")
    yield made
    made.close()


def outcome(cpu: CpuState | None, vcpu: int | None = 0) -> Outcome:
    return Outcome("triple-fault", 12, "vCPU 0 triple-faulted", "emulator", vcpu, cpu)


def identity_cpu() -> CpuState:
    return CpuState(
        gprs=tuple(0x1111 * n for n in range(16)), rip=0x100000, rflags=0x10046, cs=CODE32, cr0=0x11,
        ds=SegmentRegister(0x18), es=SegmentRegister(0x20), ss=SegmentRegister(0x28),
        fs=SegmentRegister(0x30, 0xF5000), gs=SegmentRegister(0x38, 0xFFFF888000000000),
    )  # fmt: skip


def paged_cpu(ram: GuestRam) -> CpuState:
    """Return a processor in long mode, with the code at HIGH, a stack elsewhere, and nothing at its physical place."""
    tables = Tables(ram, LONG)
    tables.map(HIGH, 0x100000)
    tables.map(HIGH + 0x1000, 0x300000)
    tables.map(0xFFFFC90000000000, 0x400000)
    ram.write(0x300FF8, b"far page")
    ram.write(0x400000, b"on stack")
    return tables.cpu(rip=HIGH, rsp=0xFFFFC90000000000)


def test_the_header_is_an_x86_64_core(ram: GuestRam, tmp_path: Path) -> None:
    core = written(tmp_path, ram, identity_cpu())
    assert core.data[:16] == b"\x7fELF\x02\x01\x01" + bytes(9)
    assert struct.unpack_from("<HHI", core.data, 16) == (4, 62, 1)  # ET_CORE, EM_X86_64, EV_CURRENT


def written(folder: Path, ram: GuestRam, cpu: CpuState | None) -> Core:
    path = folder / "core"
    assert write_core(str(path), ram, outcome(cpu)) == ()
    return Core(path.read_bytes())


def test_registers_lie_where_elf_prstatus_has_them(ram: GuestRam, tmp_path: Path) -> None:
    status = written(tmp_path, ram, identity_cpu()).prstatus()
    assert len(status) == 336
    assert struct.unpack_from("<h", status, 12) == (0,)  # pr_cursig: no signal ended a guest
    assert struct.unpack_from("<i", status, 32) == (1,)  # pr_pid
    found = dict(zip(USER_REGS, struct.unpack_from("<27Q", status, 112), strict=True))
    assert [found[name] for name in GPR_NAMES] == [0x1111 * n for n in range(16)]
    assert (found["rip"], found["eflags"]) == (0x100000, 0x10046)
    assert [found[name] for name in ("cs", "ds", "es", "ss", "fs", "gs")] == [8, 0x18, 0x20, 0x28, 0x30, 0x38]
    assert (found["fs_base"], found["gs_base"]) == (0xF5000, 0xFFFF888000000000)


def test_without_paging_addresses_are_physical(ram: GuestRam, tmp_path: Path) -> None:
    core = written(tmp_path, ram, identity_cpu())
    assert [(h.vaddr, h.paddr, h.filesz) for h in core.of(PT_LOAD)] == [
        (0, 0, 16 * MIB), (0xFC000000, 0xFC000000, 0x3000)
    ]  # fmt: skip
    assert core.read(0x100000, len(CODE)) == CODE
    assert core.read(0xFC001000, 8) == b"RSD PTR "


def test_with_paging_addresses_are_linear(ram: GuestRam, tmp_path: Path) -> None:
    core = written(tmp_path, ram, paged_cpu(ram))
    assert [(h.vaddr, h.paddr, h.filesz) for h in core.of(PT_LOAD)] == [
        (0xFFFFC90000000000, 0x400000, 0x1000), (HIGH, 0x100000, 0x1000), (HIGH + 0x1000, 0x300000, 0x1000)
    ]  # fmt: skip
    assert core.read(HIGH, len(CODE)) == CODE
    assert core.read(HIGH + 0x1FF8, 8) == b"far page"
    assert core.read(0xFFFFC90000000000, 8) == b"on stack"


def test_all_of_physical_memory_is_there_mapped_or_not(ram: GuestRam, tmp_path: Path) -> None:
    core = written(tmp_path, ram, paged_cpu(ram))
    blocks = core.of(PT_PVH_RAM)
    assert [(h.paddr, h.filesz) for h in blocks] == [(0, 16 * MIB), (0xFC000000, 0x3000)]
    for header, block in zip(blocks, ram.blocks, strict=True):
        assert core.data[header.offset :][: header.filesz] == bytes(block.view)


def test_segments_lie_inside_the_file_as_page_aligned_as_in_memory(ram: GuestRam, tmp_path: Path) -> None:
    core = written(tmp_path, ram, paged_cpu(ram))
    for header in core.of(PT_LOAD):
        assert header.offset % header.align == header.vaddr % header.align
        assert header.filesz == header.memsz
    assert all(header.offset + header.filesz <= len(core.data) for header in core.headers)


def test_without_registers_the_core_is_physical_memory_alone(ram: GuestRam, tmp_path: Path) -> None:
    core = written(tmp_path, ram, None)
    assert core.of(PT_NOTE) == []
    assert core.read(0x100000, len(CODE)) == CODE


def gdb(core: Path, *commands: str) -> str:
    if not shutil.which("gdb"):
        pytest.skip("no gdb: apt-get install gdb")
    arguments = [part for command in commands for part in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-core", str(core), *arguments], capture_output=True, text=True, check=True
    )
    assert "warning" not in done.stderr.lower(), done.stderr
    return done.stdout


def registers(text: str) -> dict[str, int]:
    return {name: int(value, 16) for name, value in re.findall(r"^(\w+) +(0x[0-9a-f]+)", text, re.MULTILINE)}


def test_gdb_reads_a_guest_without_paging(ram: GuestRam, tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_core(str(path), ram, outcome(identity_cpu()))
    text = gdb(path, "info registers", "p/x $fs_base", "x/3i $rip", "x/s 0xfc001000")
    found = registers(text)
    assert (found["rip"], found["rax"], found["rsp"], found["r15"]) == (0x100000, 0, 0x4444, 0xFFFF)
    assert (found["cs"], found["gs"], found["eflags"]) == (8, 0x38, 0x10046)
    assert "$1 = 0xf5000" in text
    assert re.search(r"=> 0x100000:\s+mov +\$0x12345678,%eax", text)
    assert re.search(r"0x100005:\s+vmcall", text)
    assert '"RSD PTR "' in text


def test_gdb_reads_a_guest_in_long_mode_by_linear_address(ram: GuestRam, tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_core(str(path), ram, outcome(paged_cpu(ram), vcpu=3))
    text = gdb(path, "info registers", "info threads", "x/3i $rip", "x/8c 0xffffffff81001ff8", "x/s $rsp")
    found = registers(text)
    assert (found["rip"], found["rsp"], found["rax"]) == (HIGH, 0xFFFFC90000000000, 0x100)
    assert "LWP 4" in text
    assert re.search(r"=> 0xffffffff81000000:\s+mov +\$0x12345678,%eax", text)
    assert re.search(r"0xffffffff81000008:\s+hlt", text)
    assert "102 'f'" in text
    assert '"on stack"' in text


def test_gdb_finds_nothing_where_the_guest_maps_nothing(ram: GuestRam, tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_core(str(path), ram, outcome(paged_cpu(ram)))
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-core", str(path), "-ex", "x/i 0x100000"], capture_output=True, text=True, check=False
    )
    assert "Cannot access memory at address 0x100000" in done.stderr


def test_only_touched_pages_take_room(tmp_path: Path) -> None:
    ram = GuestRam(((0, 512 * MIB),))
    for mib in range(16, 76):
        ram.write(mib * MIB, b"\xa5" * MIB)
    path = tmp_path / "core"
    started = time.monotonic()
    write_core(str(path), ram, outcome(identity_cpu()))
    assert time.monotonic() - started < 1  # seconds; seen: 0.03 to 0.1
    stat = path.stat()
    assert stat.st_size > 512 * MIB
    assert 60 * MIB <= stat.st_blocks * 512 < 64 * MIB
    ram.close()


def test_a_file_mapped_into_the_guest_is_in_the_core_though_nobody_touched_it(tmp_path: Path) -> None:
    ram = GuestRam(((0, 8 * MIB),))
    module = tmp_path / "initrd"
    module.write_bytes(b"initrd.." * (MIB // 8))
    with module.open("rb") as stream:
        assert ram.map_file(4 * MIB, MIB, stream.fileno(), 0)
        core = written(tmp_path, ram, identity_cpu())
    assert core.read(4 * MIB, MIB) == module.read_bytes()
    ram.close()


def test_a_mapped_file_that_was_cut_reads_as_the_guest_would_read_it(tmp_path: Path) -> None:
    ram = GuestRam(((0, 8 * MIB),))
    module = tmp_path / "initrd"
    module.write_bytes(b"initrd.." * (MIB // 8))
    with module.open("rb") as stream:
        assert ram.map_file(4 * MIB, MIB, stream.fileno(), 0)
        with module.open("r+b") as other:
            other.truncate(0x3000)
        core = written(tmp_path, ram, identity_cpu())
    assert core.read(4 * MIB, MIB) == b"initrd.." * (0x3000 // 8) + bytes(MIB - 0x3000)
    ram.close()


def test_a_core_replaces_what_was_there_and_is_its_owners_alone(ram: GuestRam, tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_core(str(path), ram, outcome(None))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"\xff" * (20 * MIB))
    assert written(tmp_path, ram, None).read(0x200000, 8) == bytes(8)


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/dev/full", "no space left on device"),
        ("/nonexistent/core", "no such file or directory"),
        ("/", "is a directory"),
    ],
)
def test_what_cannot_be_written_is_said(ram: GuestRam, path: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        write_core(path, ram, outcome(identity_cpu()))
    assert caught.value.path == path
    assert caught.value.cause == f"cannot write the core: {cause}"


def test_a_disk_without_room_keeps_what_was_written(ram: GuestRam, tmp_path: Path) -> None:
    """A limit on file size stands in for the full disk; the header comes first, so what is there can be read."""
    path = tmp_path / "core"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(UsageError) as caught:
            write_core(str(path), ram, outcome(identity_cpu()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "file too large" in caught.value.cause
    assert len(Core(path.read_bytes()).headers) == 5


def test_ranges_beyond_the_bound_are_said_to_be_left_out(tmp_path: Path) -> None:
    ram = GuestRam(((0, 16 * MIB),))
    ram.write(0x1000, (0x1003).to_bytes(8, "little") * 512)  # a knot: every entry maps the table itself
    path = tmp_path / "core"
    cpu = Tables(ram, LONG, at=0x1000).cpu(rip=0)
    (told,) = write_core(str(path), ram, outcome(cpu))
    assert "16384 ranges" in told
    assert Core(path.read_bytes()).read(0, 8) == (0x1003).to_bytes(8, "little")
    ram.close()
