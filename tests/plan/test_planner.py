"""What goes where, and what is refused (xen/tools/libs/guest/xg_dom_core.c, xc_dom_build_image)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan.checker import check
from plan.kernels import MIB, debian, kernel, note
from pvh.abi import elfnote
from pvh.errors import DoesNotFit, NotBootable, UsageError
from pvh.kernel.record import Finding, Kernel, Note
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.record import FileBytes, LiteralBytes, Plan, Range

PAGE = 0x1000
OLD_LINUX = (note(elfnote.GUEST_OS, "linux"),)
MODULES_LAST = (note(elfnote.MOD_START_PFN, 1),)


def module(folder: Path, size: int, name: str = "module", cmdline: str | None = None) -> ModuleSpec:
    path = folder / name
    with path.open("wb") as file:
        file.truncate(size)
    return ModuleSpec(str(path), cmdline)


def named(made: Plan, name: str) -> Range:
    return next(r for r in made.ranges if r.name == name)


def test_modules_stand_between_kernel_and_start_info_without_mod_start_pfn(tmp_path: Path) -> None:
    modules = (module(tmp_path, 5000, "a"), module(tmp_path, 1, "b"))
    for notes in ((), (note(elfnote.MOD_START_PFN, 0),)):
        made = plan(kernel((MIB, 0x1800), notes=notes), BootOptions(modules=modules))
        assert [m.paddr for m in made.start_info.modules] == [0x102000, 0x104000]
        assert made.start_info.paddr == 0x105000


def test_modules_stand_behind_start_info_with_mod_start_pfn(tmp_path: Path) -> None:
    modules = (module(tmp_path, 5000, "a"), module(tmp_path, 1, "b"))
    made = plan(kernel((MIB, 0x1800), notes=MODULES_LAST), BootOptions(modules=modules))
    assert made.start_info.paddr == 0x102000
    assert [m.paddr for m in made.start_info.modules] == [0x103000, 0x105000]


def test_module_bytes_are_read_from_its_file(tmp_path: Path) -> None:
    made = plan(kernel((MIB, 0x1000)), BootOptions(modules=(module(tmp_path, 5000),)))
    content = named(made, "module 0").content
    assert isinstance(content, FileBytes)
    assert (content.source.path, content.offset, content.count) == (str(tmp_path / "module"), 0, 5000)


def test_segments_are_placed_at_p_paddr_with_bss_behind_their_file_bytes() -> None:
    made = plan(kernel((MIB, 0x4000)), BootOptions())
    segment = named(made, "segment 0 (rwx)")
    assert (segment.start, segment.size) == (MIB, 0x4000)
    assert isinstance(segment.content, FileBytes)
    assert (segment.content.offset, segment.content.count) == (0x1000, 0x3000)


def test_the_segment_holds_structure_cmdline_list_module_cmdlines_and_map_in_that_order(tmp_path: Path) -> None:
    modules = tuple(module(tmp_path, 1, f"m{i}", "z" * 3000) for i in range(40))
    made = plan(kernel((MIB, 0x1000)), BootOptions(cmdline="quiet", modules=modules))
    check(made)
    parts = [r.name for r in made.ranges if r.kind == "start-info"]
    assert parts == ["start_info", "cmdline", "modlist", *(f"module {i} cmdline" for i in range(40)), "memmap"]
    cmdline, long = named(made, "cmdline").content, named(made, "module 39 cmdline").content
    assert isinstance(cmdline, LiteralBytes)
    assert isinstance(long, LiteralBytes)
    assert (cmdline.data, long.data) == (b"quiet\0", b"z" * 3000 + b"\0")
    assert named(made, "start_info").content is named(made, "memmap").content is None, "the builder packs them"


def test_a_kernel_loaded_high_gets_the_rest_below_it_from_1_mib(tmp_path: Path) -> None:
    high = kernel((64 * MIB - 2 * PAGE, PAGE + 1))
    made = plan(high, BootOptions(memory=64 * MIB, modules=(module(tmp_path, 3 * PAGE),)))
    check(made)
    assert made.start_info.modules[0].paddr == 0x100000
    assert made.start_info.paddr == 0x103000
    assert "below the kernel" in named(made, "module 0").reason
    assert "below the kernel" in named(made, "start_info").reason


def test_what_still_fits_above_stays_above(tmp_path: Path) -> None:
    high = kernel((64 * MIB - 3 * PAGE, 2 * PAGE))
    made = plan(high, BootOptions(memory=64 * MIB, modules=(module(tmp_path, 3 * PAGE),)))
    assert made.start_info.modules[0].paddr == 0x100000
    assert made.start_info.paddr == 64 * MIB - PAGE


def test_a_kernel_from_1_mib_up_to_the_end_leaves_the_place_below_the_isa_hole() -> None:
    made = plan(kernel((MIB, MIB)), BootOptions(memory=2 * MIB))
    assert made.start_info.paddr == PAGE, "never page 0: an address of 0 means absent"


@pytest.mark.parametrize(
    ("image", "rsdp"),
    [
        (kernel((MIB, PAGE)), 0xFC002000),
        (kernel((MIB, PAGE), notes=(note(elfnote.GUEST_OS, "Linux"),)), 0xFC002000),
        (kernel((MIB, PAGE), notes=(note(elfnote.GUEST_OS, "linux 2.6"),)), 0xFC002000),
        (kernel((MIB, PAGE), notes=OLD_LINUX, supported=1 << 15), 0xFC002000),
        (kernel((MIB, PAGE), notes=OLD_LINUX), 0xFFFC0),
        (debian(), 0xFC002000),
    ],
)
def test_rsdp_is_in_the_bios_area_only_for_a_linux_that_does_not_say_it_is_unrestricted(
    image: Kernel, rsdp: int
) -> None:
    """libxl_x86_acpi.c, libxl__dom_load_acpi: strcmp(guest_os, "linux") or XENFEAT_linux_rsdp_unrestricted."""
    made = plan(image, BootOptions())
    check(made)
    assert made.start_info.rsdp_paddr == rsdp
    low = [(e.addr, e.size, e.type) for e in made.memory_map if e.end <= 512 * MIB]
    split = [(0, 0xFFFC0, 1), (0xFFFC0, 64, 4), (0x100000, 511 * MIB, 1)]
    assert low == (split if rsdp == 0xFFFC0 else [(0, 512 * MIB, 1)])


def test_a_kernel_over_the_bios_area_is_warned_of_and_gets_the_rsdp_high() -> None:
    made = plan(kernel((0xF0000, 0x20000), notes=OLD_LINUX), BootOptions())
    check(made)
    assert made.start_info.rsdp_paddr == 0xFC002000
    assert any("linux_rsdp_unrestricted" in warning for warning in made.warnings)


def test_nothing_is_allocated_on_the_page_of_a_low_rsdp(tmp_path: Path) -> None:
    image = kernel((0x9F000, PAGE), notes=OLD_LINUX)
    made = plan(image, BootOptions(modules=(module(tmp_path, 0x5F000), module(tmp_path, PAGE, "b"))))
    check(made)
    assert [m.paddr for m in made.start_info.modules] == [0xA0000, 0x100000]


def test_the_rsdp_page_is_backed_where_ram_ends_before_it() -> None:
    made = plan(kernel((PAGE, PAGE), notes=OLD_LINUX), BootOptions(memory=0x10000))
    check(made)
    assert made.backed[:2] == ((0, 0x10000), (0xFF000, PAGE))


def test_flags_are_zero_unless_asked_for() -> None:
    """PVH domU gets 0, dom0 SIF_PRIVILEGED | SIF_INITDOMAIN (public/xen.h)."""
    image = kernel((MIB, PAGE))
    flags = [
        plan(image, BootOptions(privileged=p, initdomain=i)).start_info.flags
        for p, i in ((False, False), (True, False), (False, True), (True, True))
    ]
    assert flags == [0, 1, 2, 3]


def test_special_pages_exist_on_xen_and_not_on_bare() -> None:
    xen, bare = (plan(kernel((MIB, PAGE)), BootOptions(platform=p)) for p in ("xen", "bare"))
    assert named(xen, "CONSOLE page").start == 0xFEFFF000
    assert named(xen, "XENSTORE page").start == 0xFEFFC000
    ident = named(xen, "IDENT_PT page").content
    assert isinstance(ident, LiteralBytes)
    assert (ident.data[:8], len(ident.data)) == (b"\xe7\0\0\0\xe7\0\x40\0", PAGE)
    assert not [r for r in bare.ranges if r.kind == "special"]


def test_draft_c_has_no_rsdp_no_map_and_no_module_command_lines(tmp_path: Path) -> None:
    made = plan(kernel((MIB, PAGE)), BootOptions(abi="draft-c", modules=(module(tmp_path, 1, cmdline="x"),)))
    info = made.start_info
    assert (info.rsdp_paddr, info.memmap_paddr, info.modules[0].cmdline_paddr) == (0, 0, 0)
    assert any("Draft C" in warning for warning in made.warnings)


def test_an_empty_module_is_listed_with_an_address_of_its_own_and_warned_of(tmp_path: Path) -> None:
    made = plan(kernel((MIB, PAGE)), BootOptions(modules=(module(tmp_path, 0), module(tmp_path, 0, "b"))))
    check(made)
    assert [(m.paddr, m.size) for m in made.start_info.modules] == [(0x101000, 0), (0x102000, 0)]
    assert [warning.split(" (")[0] for warning in made.warnings] == ["module 0", "module 1"]


def test_a_command_line_longer_than_linux_reads_is_a_warning() -> None:
    longest, longer = (plan(kernel((MIB, PAGE)), BootOptions(cmdline="x" * length)) for length in (2047, 2048))
    assert longest.warnings == ()
    assert longer.warnings == ("the command line has 2048 bytes; Linux reads 2047 and drops the rest",)


@pytest.mark.parametrize(
    "options",
    [
        BootOptions(memory=0),
        BootOptions(memory=-PAGE),
        BootOptions(memory=MIB + 1),
        BootOptions(memory=1 << 40),
        BootOptions(vcpus=0),
        BootOptions(vcpus=129),
        BootOptions(cmdline="a\0b"),
        BootOptions(cmdline="\ud800"),
        BootOptions(modules=(ModuleSpec("/nonexistent"),)),
    ],
)
def test_options_that_make_no_sense_are_refused(options: BootOptions) -> None:
    with pytest.raises(UsageError) as caught:
        plan(kernel((MIB, PAGE)), options)
    assert str(caught.value)


def test_the_most_memory_and_processors_are_taken() -> None:
    check(plan(kernel((MIB, PAGE)), BootOptions(memory=(1 << 40) - 0x4000000, vcpus=128)))


def test_a_kernel_that_is_refused_is_not_planned() -> None:
    refused = replace(kernel((MIB, PAGE)), problems=(Finding("no-phys32-entry", "no PHYS32_ENTRY note"),))
    with pytest.raises(NotBootable):
        plan(refused, BootOptions())


def test_too_little_memory_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    options = BootOptions(memory=16 * MIB, modules=(module(tmp_path, 100 * MIB),))
    with pytest.raises(DoesNotFit) as caught:
        plan(debian(), options)
    need = 0x3E00000 + PAGE + 100 * MIB
    assert caught.value.found == f"{16 * MIB} bytes"
    assert caught.value.wanted == f"at least {need} bytes"
    assert caught.value.hint == "--memory 163M"
    check(plan(debian(), replace(options, memory=need)))
    with pytest.raises(DoesNotFit):
        plan(debian(), replace(options, memory=need - PAGE))


def test_what_never_fits_below_4_gib_says_so(tmp_path: Path) -> None:
    vast = module(tmp_path, 0xFC000000)
    for image in (kernel((0xFBFFF000, 0x2000)), kernel((MIB, PAGE))):
        with pytest.raises(DoesNotFit, match="0xfc000000"):
            plan(image, BootOptions(memory=65536 * MIB, modules=(vast,)))


@given(
    start=st.integers(1, 0x8000).map(lambda page: page * PAGE),
    size=st.integers(1, 32 * MIB),
    memory=st.integers(1, 0x10000).map(lambda page: page * PAGE),
    notes=st.sampled_from([(), MODULES_LAST, OLD_LINUX, OLD_LINUX + MODULES_LAST]),
    cmdline=st.integers(0, 20000),
)
def test_a_plan_is_valid_or_names_the_least_memory(
    start: int, size: int, memory: int, notes: tuple[Note, ...], cmdline: int
) -> None:
    image = kernel((start, size), notes=notes)
    options = BootOptions(memory=memory, cmdline="x" * cmdline)
    try:
        check(plan(image, options))
    except DoesNotFit as error:
        need = int((error.wanted or "").split()[2])
    else:
        return
    assert need > memory
    check(plan(image, replace(options, memory=need)))
    with pytest.raises(DoesNotFit):
        plan(image, replace(options, memory=need - PAGE))


def test_planning_a_big_kernel_and_a_big_module_takes_less_than_5_ms(tmp_path: Path) -> None:
    """60 MB of kernel, 256 MiB of module: no byte of either is read (the kernel's source would fail the test)."""
    options = BootOptions(memory=1024 * MIB, modules=(module(tmp_path, 256 * MIB),))
    times: list[float] = []
    for _ in range(20):
        begun = time.perf_counter()
        plan(debian(), options)
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.005
