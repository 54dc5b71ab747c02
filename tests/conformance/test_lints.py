"""Lints: one odd file for each, and the file beside it that is fine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.oddities import ODD, WIDE, image
from elfwriter import Elf
from pvh.conformance.lints import lint
from pvh.kernel.read import read_source
from pvh.kernel.source import BytesSource
from pvh.plan.options import BootOptions


def found(made: Elf, options: BootOptions | None = None) -> set[tuple[str, str]]:
    kernel = read_source(BytesSource("k", made.build()))
    return {(finding.clause, finding.grade) for finding in lint(kernel, options or BootOptions())}


def test_a_plain_kernel_has_none() -> None:
    assert found(image()) == set()


@pytest.mark.parametrize(("made", "wanted"), ODD)
def test_what_is_odd_is_found(made: Elf, wanted: tuple[str, str]) -> None:
    assert wanted in found(made)


def test_jumps_end_the_look_at_the_entry() -> None:
    """Behind a jump may be anything: data, or 64-bit code."""
    assert found(image(code=bytes.fromhex("eb 07") + WIDE + b"\xf4")) == set()


def test_what_fits_with_more_memory_fits() -> None:
    assert found(image(memsz=1 << 30), BootOptions(memory=2 << 30)) == set()


@pytest.mark.parametrize("name", ["vmlinuz-cloud-6.1", "vmlinuz-6.12", "grub-i386-xen_pvh.bin", "xen-shim"])
def test_released_kernels_break_nothing(specimen: Callable[[str], Path], name: str) -> None:
    from pvh.kernel.read import read_kernel

    assert [f for f in lint(read_kernel(str(specimen(name))), BootOptions()) if f.grade == "violation"] == []
