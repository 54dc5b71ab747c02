"""Where a boot that fails parts from one that does not: the nine kernels that use nothing undefined, and small ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.kernels import cases
from conformance.relies import written
from pvh.conformance.boot import Limits
from pvh.conformance.checker import Task
from pvh.conformance.finding import Parting
from pvh.conformance.report import check
from pvh.conformance.text import render
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions

ENGINE = EmulatorEngine()

# Name of the kernel: profile, what it read, the value there, and one it read where it boots.
NINE: dict[str, tuple[str, str, int, int]] = {
    "memory_amount": ("odd-memory", "no memory (physical 0x1fffffc0)", 0, 0x336EC578),
    "vcpus": ("vcpus-2", "EAX", 0, 0xFFFFFFFE),
    "version_future": ("version-9", "start_info.version", 9, 1),
    "memmap_order": ("memory-map", "the addr of entry 3 of the memory map", 0, 0xFC000000),
    "memmap_holes": ("memory-map", "no memory (physical 0x18000000)", 0, 0x336EC578),
    "memmap_zero_size": ("memory-map", "ECX", 0, 0x1000),
    "memmap_types": ("memory-map", "the type of entry 1 of the memory map", 0x20, 1),
    "cmdline_long": ("long-cmdline", "ECX", 1, 0x80),
    "reloc": ("moved-low", "right_reloc+0x1b", 0, 0x336EC578),
}


def parted(path: str, profile: str, options: BootOptions | None = None) -> dict[str, Parting | None]:
    """Check under one profile; return the partings by clause."""
    task = Task(read_kernel(path), options or BootOptions(), (), Limits(10.0))
    report = check(task, ENGINE, 1, 1, only=lambda name: name == profile, tell=lambda _what, _count: None)
    found = {verdict.clause.id: verdict.findings for verdict in report.violated}
    assert all(clause.culprit for clause in report.violated if any(f.parting for f in clause.findings))
    assert "decided at" in render(report, 100) or not any(
        f.parting and not f.parting.fatal for fs in found.values() for f in fs
    )
    return {clause: next((f.parting for f in findings if f.parting), None) for clause, findings in found.items()}


@pytest.mark.parametrize("name", NINE)
def test_what_uses_nothing_undefined_is_found_where_it_goes_wrong(tmp_path: Path, name: str) -> None:
    case = next(case for case in cases() if case.name == name and case.culprit)
    profile, place, value, elsewhere = NINE[name]
    cmdline = "some words" if name == "cmdline_long" else ""
    found = parted(str(case.write(tmp_path)), profile, BootOptions(cmdline=cmdline))[case.clause]
    assert found
    moved = 0x1000 if profile == "moved-low" else 0
    assert found.at.address == (case.culprit or 0) + moved
    assert found.fatal == (name == "memmap_zero_size")
    assert [(read.value, elsewhere in read.elsewhere) for read in found.reads if read.place == place][:1] == [
        (value, True)
    ]


_VERSION = "837b04 01"  # cmpl $1, 4(%ebx)
_LOADED = "8b4304 90 3c01"  # mov 4(%ebx), %eax; nop; cmp $1, %al
_STACK = "bc 00182000"  # mov $0x201800, %esp
_DONE = "b000 e6f4 f4"  # mov $0, %al; out %al, $0xf4; hlt


def parting(folder: Path, code: str) -> Parting | None:
    """Return where a kernel of this code parts when start_info has version 9."""
    path = written(folder, "kernel.elf", bytes.fromhex(code))
    return parted(path, "version-9").get("version.future")


def test_a_register_is_followed_to_what_it_was_loaded_from(tmp_path: Path) -> None:
    found = parting(tmp_path, f"{_LOADED} 7402 0f0b {_DONE}")
    assert found
    assert (found.at.address, found.at.disassembly) == (0x200004, "cmp al, 1")
    assert [(read.place, read.value, read.elsewhere, read.by.address) for read in found.reads] == [
        ("AL", 9, (1,), 0x200004),
        ("start_info.version", 9, (1,), 0x200000),
    ]


def test_a_way_of_its_own_from_which_it_comes_back_is_not_where_it_goes_wrong(tmp_path: Path) -> None:
    """Another version takes one NOP more; then it goes on as ever, and dies of the second test."""
    found = parting(tmp_path, f"{_VERSION} 7401 90 31c0 7400 eb00 {_VERSION} 7402 0f0b {_DONE}")
    assert found
    assert found.at.address == 0x20000D
    assert found.branch.disassembly == "je 0x200015"


def test_a_function_that_is_known_does_not_count_as_coming_back(tmp_path: Path) -> None:
    """What fails calls what the other run calls, too; the call is deeper on the stack."""
    # 0: mov esp; 5: call f (0x1b); a: cmp; e: je 17; 10: call f (0x1b); 15: ud2; 17: mov; out; 1b: is behind
    code = f"{_STACK} e8 13000000 {_VERSION} 7407 e8 08000000 0f0b {_DONE} 90 7400 c3"
    found = parting(tmp_path, code)
    assert found
    assert (found.at.address, found.branch.address) == (0x20000A, 0x20000E)
    assert not found.fatal


def test_a_kernel_that_goes_on_for_ever_where_it_went_is_not_blamed_for_an_instruction(tmp_path: Path) -> None:
    assert parting(tmp_path, f"{_VERSION} 75fa {_DONE}") is None


def test_an_exception_where_it_went_is_fatal(tmp_path: Path) -> None:
    """10 / (9 - version)."""
    # mov $9, %ecx; sub 4(%ebx), %ecx; mov $10, %eax; xor %edx, %edx; div %ecx
    found = parting(tmp_path, f"b909000000 2b4b04 b80a000000 31d2 f7f1 {_DONE}")
    assert found
    assert found.fatal
    assert found.at == found.branch
    assert found.at.disassembly == "div ecx"
    assert next((read.place, read.value, read.elsewhere) for read in found.reads) == ("ECX", 0, (8,))
