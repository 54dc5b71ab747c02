"""The first-read monitor on kernels that people run: it claims next to nothing, and that can be shown by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.monitored import SLOW, emulator, monitored, violations
from pvh.build.builder import build
from pvh.build.image import Image
from pvh.demo import demo_path
from pvh.kernel.read import read_kernel
from pvh.machine import Machine
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.variation import Variation

NT = 1 << 14

QUIET = ("vmlinuz-cloud-6.1", "vmlinuz-generic-6.1", "vmlinuz-6.12", "grub-i386-xen_pvh.bin")


@pytest.mark.parametrize("name", QUIET)
def test_a_released_kernel_violates_nothing(name: str, specimen: Callable[[str], Path]) -> None:
    module = ModuleSpec(str(specimen("busybox")), "words")
    options = BootOptions(timeout=SLOW, cmdline="console=hvc0", modules=(module,))
    findings, _, engine = monitored(specimen(name), options)
    assert violations(findings) == []
    assert engine.watched >= 100_000


def test_the_demo_kernel_violates_nothing() -> None:
    findings, outcome, _ = monitored(Path(demo_path()))
    assert violations(findings) == []
    assert outcome.ending == "poweroff"


def test_registers_saved_by_c_code_are_notes(specimen: Callable[[str], Path]) -> None:
    findings, _, _ = monitored(specimen("vmlinuz-cloud-6.1"), limit=5000)
    notes = {finding.clause: finding.at for finding in findings if finding.grade == "note"}
    at = notes["entry.ebp"]
    assert at
    assert re.match(r"push rbp$", at.disassembly)


class TestXenShim:
    """Entered by PVH, Xen 4.17 looks for Multiboot's flags all the same, through a pointer that is 0: at address 0."""

    def test_it_is_found(self, specimen: Callable[[str], Path]) -> None:
        findings, _, _ = monitored(specimen("xen-shim"))
        assert violations(findings) == [("start_info.null", "test dword ptr [ebx], 4")]

    @pytest.mark.parametrize(("word", "ending"), [(0, "crash"), (4, "deadline")])
    def test_it_can_be_shown_by_hand(self, specimen: Callable[[str], Path], word: int, ending: str) -> None:
        """With bit 2 there, it takes what stands at address 16 for the address of a command line."""
        image = _image(specimen("xen-shim"), BootOptions(timeout=3.0))
        assert image.ram.write(0, word.to_bytes(4, "little") + bytes(12) + (0xDEADBEEF).to_bytes(4, "little"))
        outcome = Machine(image, emulator(), lambda _: None).run()
        image.ram.close()
        assert outcome.ending == ending


class TestLinuxOfVersion0:
    """With no memory map Linux makes a hypercall before it clears EFLAGS, and prepares it by IRET: NT must be clear."""

    def test_it_is_found(self, specimen: Callable[[str], Path]) -> None:
        options = BootOptions(timeout=SLOW, abi="v0")
        findings, _, _ = monitored(specimen("vmlinuz-cloud-6.1"), options, limit=60_000)
        assert violations(findings) == [("eflags.system", "iretq")]

    @pytest.mark.parametrize(("nested_task", "ending"), [(0, "deadline"), (NT, "triple-fault")])
    def test_it_can_be_shown_by_hand(self, specimen: Callable[[str], Path], nested_task: int, ending: str) -> None:
        flags = Variation(registers=(("rflags", nested_task),))
        image = _image(specimen("vmlinuz-cloud-6.1"), BootOptions(timeout=3.0, abi="v0", variation=flags))
        outcome = Machine(image, emulator(), lambda _: None).run()
        image.ram.close()
        assert outcome.ending == ending


def _image(path: Path, options: BootOptions) -> Image:
    return build(plan(read_kernel(str(path)), options))
