"""Every profile is a guest that the ABI allows, and differs from libxenguest's in what it says, and only there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from conformance import validator
from conformance.relies import written
from conformance.validator import NotByTheAbi, Told
from plan.kernels import MIB, kernel
from pvh.abi import x86
from pvh.build.builder import build
from pvh.build.cpu_state import LOADABLE_MSRS
from pvh.build.image import Image
from pvh.conformance.boot import Limits, boot
from pvh.conformance.clauses import BY_ID
from pvh.conformance.milestone import Milestone
from pvh.conformance.profiles import KIND, NAMES, Profile, applied, profiles
from pvh.engines.select import choose
from pvh.kernel.read import read_kernel
from pvh.kernel.record import Kernel, Relocation
from pvh.kernel.source import BytesSource
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan

HELLO = str(Path(__file__).resolve().parents[1] / "guests" / "hello.elf")


def movable() -> Kernel:
    made = kernel((16 * MIB, 0x3000), (18 * MIB, 0x5000))
    return replace(made, source=BytesSource("k", b"k" * 0x8000), relocation=Relocation(2 * MIB, 4 * MIB, 1 << 30))


def guests(folder: Path) -> Iterator[tuple[str, Kernel, BootOptions]]:
    module = folder / "module"
    module.write_bytes(b"m" * 5000)
    specs = (ModuleSpec(str(module), "its words"), ModuleSpec(str(module)))
    yield "small", read_kernel(HELLO), BootOptions(memory=64 * MIB)
    yield "usual", read_kernel(HELLO), BootOptions(cmdline="console=hvc0", modules=specs)
    yield "movable", movable(), BootOptions(vcpus=2, cmdline="x")
    yield "bare", read_kernel(HELLO), BootOptions(platform="bare", memory=4 << 30)


def built(made: Kernel, options: BootOptions) -> tuple[Image, Told]:
    image = build(plan(made, options))
    told = validator.start_info(image.ram, image.entry.gprs[3])
    validator.processor(image.entry, image.plan.entry)
    validator.memory(image.ram, told, [(r.start, r.end) for r in image.plan.ranges if r.kind == "kernel"])
    validator.acpi(image.ram, told)
    return image, told


def test_each_name_is_a_profile_of_some_guest(tmp_path: Path) -> None:
    of = [[profile.name for profile in profiles(made, options)] for _, made, options in guests(tmp_path)]
    assert {name for names in of for name in names} == set(NAMES)
    assert all(names == sorted(names, key=NAMES.index) for names in of)


@pytest.mark.parametrize("seed", [1, 77])
def test_every_profile_is_by_the_abi(tmp_path: Path, seed: int) -> None:
    for name, made, options in guests(tmp_path):
        for profile in profiles(made, options, seed):
            try:
                image, _ = built(made, applied(options, profile.deviations))
            except NotByTheAbi as error:
                pytest.fail(f"{name}, {profile.name}: {error}")
            image.ram.close()


def test_each_deviation_alone_is_by_the_abi_too(tmp_path: Path) -> None:
    for _, made, options in guests(tmp_path):
        for profile in profiles(made, options):
            for deviation in profile.deviations:
                image, _ = built(made, applied(options, (deviation,)))
                image.ram.close()


def named(made: Kernel, options: BootOptions) -> dict[str, Profile]:
    return {profile.name: profile for profile in profiles(made, options)}


def told_of(name: str, options: BootOptions | None = None, made: Kernel | None = None) -> tuple[Image, Told]:
    options = options or BootOptions()
    made = made or read_kernel(HELLO)
    return built(made, applied(options, named(made, options)[name].deviations))


def test_names_and_clauses_are_real() -> None:
    found = profiles(movable(), BootOptions(cmdline="x"))
    assert len({profile.name for profile in found}) == len(found)
    assert found[0] is KIND
    clauses = {deviation.clause for profile in found for deviation in profile.deviations}
    assert clauses - set(BY_ID) == set()
    assert all(BY_ID[clause].binds != "loader" for clause in clauses)


def test_no_two_deviations_of_a_profile_set_the_same() -> None:
    for profile in profiles(movable(), BootOptions(cmdline="x")):
        fields_set = [name for d in profile.deviations for name, _ in (*d.variation, *d.options)]
        registers = [name for d in profile.deviations for name, _ in d.registers if name != "rflags"]
        assert len(set(fields_set)) == len(fields_set), profile.name
        assert len(set(registers)) == len(registers), profile.name


@pytest.mark.parametrize("name", ["ones", "random", "nasty"])
def test_everything_that_is_not_promised_is_otherwise(name: str) -> None:
    kind, _ = told_of("kind")
    image, _ = told_of(name)
    same = {"rip", "cr0", "cr4", "mtrr_def_type"}
    assert image.entry.dr7 & 0xFF == 0
    assert {f.name for f in fields(kind.entry) if getattr(kind.entry, f.name) == getattr(image.entry, f.name)} == same
    assert [i for i in range(16) if kind.entry.gprs[i] == image.entry.gprs[i]] == [3], "EBX alone is promised"
    for segment in ("cs", "ds", "es", "ss", "tr"):
        was, now = getattr(kind.entry, segment), getattr(image.entry, segment)
        assert replace(was, selector=now.selector) == now
    free = image.ram.read(0x300000, 4096)
    assert free is not None
    assert free.count(0) < 64


def test_nasty_is_what_other_loaders_leave() -> None:
    image, _ = told_of("nasty")
    assert image.entry.gprs[0] == 0x2BADB002
    assert image.ram.block(image.entry.gprs[4], 1) is None, "ESP is no memory"
    assert image.entry.rflags & x86.RFLAGS_DF


def test_a_seed_gives_the_same_guest_again() -> None:
    made, options = read_kernel(HELLO), BootOptions()
    assert [p.deviations for p in profiles(made, options, 5)][:8] == [p.deviations for p in profiles(made, options, 5)][
        :8
    ]
    assert profiles(made, options, 5)[2].deviations != profiles(made, options, 6)[2].deviations


def test_bss_is_zero_where_ram_is_not() -> None:
    for name in ("ones", "random", "nasty"):
        image, _ = told_of(name, made=movable())
        for piece in image.plan.ranges:
            if piece.kind == "kernel" and piece.content is None:
                assert image.ram.read(piece.start, piece.size) == bytes(piece.size)


def test_start_info_ends_where_ram_ends() -> None:
    for name, size in (("edge", 56), ("version-0", 40)):
        image, told = told_of(name)
        end = image.entry.gprs[3] + size
        assert image.ram.block(end - 1, 1) is not None, name
        assert image.ram.block(end, 1) is None, name
        assert told.version == (name == "edge")
    image, _ = told_of("edge")
    assert image.ram.block(image.entry.gprs[4], 1) is not None, "ESP is the last byte"
    assert image.ram.block(image.entry.gprs[4] + 1, 1) is None


def test_parts_are_scattered_and_end_pages() -> None:
    module = BootOptions(cmdline="some words", modules=(ModuleSpec(HELLO, "a"), ModuleSpec(HELLO, "b")))
    image, told = told_of("scattered", module)
    starts = [start >> 12 for start, _ in told.parts]
    parts = [r for r in image.plan.ranges if r.kind == "start-info"]
    assert len({r.start >> 12 for r in parts}) == len(parts) == 6, "head, words, list, two strings, map"
    assert all(-r.end % 4096 < 8 for r in parts if r.name != "start_info")
    assert len(set(starts)) >= 7


def test_the_memory_map_says_the_same_otherwise() -> None:
    _, plain = told_of("kind")
    image, told = told_of("memory-map")
    assert sorted(told.memmap) != told.memmap, "it is in no order"
    assert [entry for entry in told.memmap if not entry[1]], "entries of no size"
    assert len(told.memmap) > 48
    assert {kind for *_, kind in told.memmap} - {1, 2, 3, 4, 5, 6, 7}, "a type that nobody knows"
    ram = sum(size for _, size, kind in told.memmap if kind == 1)
    before = sum(size for _, size, kind in plain.memmap if kind == 1)
    assert before - ram == MIB + MIB // 2, "a hole, and what is of that type"
    for start, size in image.plan.options.variation.holes:
        assert image.ram.block(start, size) is None


def test_versions() -> None:
    assert told_of("no-map")[1].memmap == []
    image, told = told_of("version-9")
    assert told.version == 9
    assert image.ram.read(image.entry.gprs[3] + 56, 64) == b"\xff" * 64
    image, told = told_of("version-0")
    assert (told.version, told.memmap) == (0, [])


def test_amounts() -> None:
    assert told_of("no-acpi")[1].rsdp == 0
    image, _ = told_of("high-memory")
    assert image.ram.block(1 << 32, 1) is not None
    assert told_of("odd-memory")[0].plan.options.memory == 512 * MIB - 0x3000
    assert {name for name in named(movable(), BootOptions(vcpus=2)) if name.startswith("vcpus")} == {
        "vcpus-1",
        "vcpus-3",
        "vcpus-4",
    }
    assert told_of("vcpus-3")[0].plan.options.vcpus == 3


def test_modules_and_command_lines() -> None:
    _, told = told_of("modules")
    assert len(told.modules) == 8
    assert {text for *_, text in told.modules} == {b"more"}
    _, told = told_of("some-modules")
    assert 1 < len(told.modules) < 8
    given = BootOptions(modules=(ModuleSpec(HELLO),))
    counts = {
        len(dict(profile.deviations[0].options)["modules"])
        for seed in range(40)
        for profile in profiles(read_kernel(HELLO), given, seed)
        if profile.name == "some-modules"
    }
    assert counts == {3, 4, 5, 6, 7}, "neither one more nor all that there may be"
    _, told = told_of("plain-module")
    assert [text for *_, text in told.modules] == [None]
    _, told = told_of("long-cmdline", BootOptions(cmdline="first"))
    assert told.cmdline is not None
    assert len(told.cmdline) == 8000
    assert told.cmdline.startswith(b"first ")
    _, told = told_of("no-cmdline", BootOptions(cmdline="first"))
    assert told.cmdline is None


def test_a_kernel_that_can_be_moved_is_moved_as_its_note_allows() -> None:
    made = movable()
    for name in ("moved-low", "moved-high"):
        image, _ = told_of(name, made=made)
        start = min(r.start for r in image.plan.ranges if r.kind == "kernel")
        assert start != made.start
        assert start % made.relocation.align == made.start % made.relocation.align  # type: ignore[union-attr]
        assert image.entry.rip - start == (made.entry or 0) - made.start
    assert not [name for name in named(read_kernel(HELLO), BootOptions()) if name.startswith("moved")]


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [("cr4", 0x20, "cr4"), ("cr0", 0x80000011, "cr0"), ("rflags", 0x202, "eflags"), ("dr7", 0x401, "breakpoint")],
)
def test_the_validator_refuses_what_is_promised_otherwise(field: str, value: int, what: str) -> None:
    image, _ = told_of("kind")
    with pytest.raises(NotByTheAbi, match=what):
        validator.processor(replace(image.entry, **cast("Any", {field: value})), image.plan.entry)


def test_the_validator_refuses_broken_structures() -> None:
    image, told = told_of("kind")
    at = image.entry.gprs[3]
    with pytest.raises(NotByTheAbi, match="magic"):
        validator.start_info(image.ram, at + 4)
    with pytest.raises(NotByTheAbi, match="overlap"):
        validator.memory(image.ram, told, [(at, at + 1)])
    with pytest.raises(NotByTheAbi, match="no RAM"):
        validator.memory(image.ram, told, [(1 << 40, (1 << 40) + 1)])


@pytest.mark.parametrize("name", ["emulator", "kvm"])
def test_a_guest_finds_every_msr_of_its_profile(tmp_path: Path, name: Literal["emulator", "kvm"]) -> None:
    if name == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm")
    engine = choose(name, print)
    deviations = next(p for p in profiles(read_kernel(HELLO), BootOptions()) if p.name == "random").deviations
    found = {register: value for d in deviations for register, value in d.registers if register.startswith("msr.")}
    assert len(found) == len(LOADABLE_MSRS)
    for register, value in found.items():
        index = int(register.removeprefix("msr."), 16).to_bytes(4, "little")
        # mov $index, %ecx; rdmsr; out %al, $0xf4: it ends with the lowest byte as its status
        kernel = read_kernel(written(tmp_path, "msr.elf", b"\xb9" + index + bytes.fromhex("0f32 e6f4 f4")))
        made = boot(kernel, applied(BootOptions(), deviations), engine, (Milestone("ends", ""),), Limits(20.0))
        assert (made.ending, made.status) == ("exit-port", value & 0xFF), register
