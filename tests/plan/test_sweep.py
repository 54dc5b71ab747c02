"""Plans at every RAM size around each boundary, judged by a checker that shares no code with the planner."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from plan.checker import check
from plan.kernels import MIB, debian, kernel, note
from pvh.abi import elfnote
from pvh.kernel.record import Kernel
from pvh.plan.options import Abi, BootOptions, ModuleSpec, Platform
from pvh.plan.planner import plan

PAGE = 0x1000
BOUNDARIES = (32 * MIB, 2048 * MIB, 0xFC000000, 4096 * MIB, 4096 * MIB + PAGE, 65536 * MIB)
SIZES = sorted({edge + delta for edge in BOUNDARIES for delta in (-2 * PAGE, -PAGE, 0, PAGE, 2 * PAGE)})


def kernels() -> dict[str, Kernel]:
    """Return one kernel for each way the rules can go."""
    linux = note(elfnote.GUEST_OS, "linux")
    last = note(elfnote.MOD_START_PFN, 1)
    return {
        "small": kernel((0x100000, 0x5000), entry=0x100010),
        "linux before 4.20": kernel((0x1000000, 8 * MIB - 100), notes=(linux, last)),
        "linux": kernel((0x1000000, 8 * MIB), notes=(linux, last), supported=1 << 15),
        "in the ISA hole": kernel((0x9F000, 0x3000), notes=(linux,)),
        "low": kernel((0x1000, 0x2345)),
        "two segments, reversed": kernel((0x600000, 0x1234), (0x400000, 0x10)),
        "high": kernel((32 * MIB - 0x4000, 0x1F00)),
    }


@pytest.fixture(scope="module")
def module_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder: Path = tmp_path_factory.mktemp("modules")
    paths = [folder / name for name in ("one", "two", "three")]
    for path, size in zip(paths, (5 * MIB + 3, PAGE, 1), strict=True):
        with path.open("wb") as file:
            file.truncate(size)
    return [str(path) for path in paths]


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("platform", ["xen", "bare"])
@pytest.mark.parametrize("abi", ["v1", "v0", "draft-c"])
def test_every_size_gives_a_valid_plan(abi: Abi, platform: Platform, count: int, module_files: list[str]) -> None:
    cmdlines = (None, "root=/dev/xvda1", "")
    modules = tuple(map(ModuleSpec, module_files[:count], cmdlines[:count]))
    for (name, image), memory in product(kernels().items(), SIZES):
        if name == "high" and memory < 32 * MIB - 2 * PAGE:
            continue
        options = BootOptions(memory=memory, cmdline="x" * (memory // PAGE % 9), modules=modules, abi=abi,
                              platform=platform, vcpus=1 + memory // PAGE % 128)  # fmt: skip
        made = plan(image, options)
        check(made)
        assert made.entry == image.entry


def test_debian_is_placed_where_xen_places_it(tmp_path: Path) -> None:
    """facts/oracle.md, seen on Xen 4.17: start_info on the page behind the kernel, module 0 on the next."""
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(100))
    made = plan(debian(), BootOptions(modules=(ModuleSpec(str(initrd)),)))
    check(made)
    assert made.start_info.paddr == 0x3E00000
    assert made.start_info.modules[0].paddr == 0x3E01000
    assert made.entry == 0x1000850
