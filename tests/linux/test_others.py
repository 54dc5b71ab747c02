"""PVH guests that are not Linux, and use Xen's interfaces their own way: GRUB, and Xen's own shim."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from linux.person import Person, shell
from tools import debian

GRUB = "grub> "
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain(text: str) -> str:
    """Return a text without a terminal's controls, and without what GRUB echoes key by key between them."""
    return _CONTROLS.sub("", text)


class TestGrub:
    """GRUB's i386-xen_pvh platform: 32-bit, without interrupts, its console and its memory map from Xen."""

    def test_its_prompt_takes_commands(self, specimen: Callable[[str], Path]) -> None:
        with Person("--module", specimen("busybox"), specimen("grub-i386-xen_pvh.bin")) as person:
            assert plain(person.ask(GRUB, "ls")).split() == ["(memdisk)", "(proc)"]
            assert plain(person.ask(GRUB, "ls (memdisk)/")).split() == ["grub.cfg"]  # a module is not seen
            memory = plain(person.ask(GRUB, "lsmmap"))
            assert "base_addr = 0x0, length = 0x20000000, available RAM" in memory
            status, told = person.end(GRUB, "halt")
        assert status == 0
        assert "sched_op(shutdown, poweroff)" in told.splitlines()[-1]

    def test_it_boots_debians_kernel_from_a_memdisk(self, specimen: Callable[[str], Path], tmp_path: Path) -> None:
        """By Linux's own entry: the kernel finds by itself that it is a PVH guest (xen_hvm_guest_late_init)."""
        if not debian.GRUB.exists():
            specimen("of GRUB's tools")  # fails or skips
        initrd = Path(shell(specimen("busybox"), tmp_path / "initrd"))
        debian.grub_with({"vmlinuz": specimen("vmlinuz-cloud-6.1"), "initrd": initrd}, tmp_path / "grub.elf")
        with Person(tmp_path / "grub.elf") as person:
            assert {"initrd", "vmlinuz"} <= set(plain(person.ask(GRUB, "ls (memdisk)/")).split())
            person.ask(GRUB, "linux (memdisk)/vmlinuz console=hvc0 said-by=grub")
            person.ask(GRUB, "initrd (memdisk)/initrd")
            person.see(GRUB)
            person.type("boot\r")
            assert "said-by=grub" in person.ask("/ # ", "cat /proc/cmdline")
            assert person.ask("/ # ", "cat /sys/hypervisor/guest_type") == "PVH\n"
            assert "Booting paravirtualized kernel on Xen PVH" in person.ask("/ # ", "dmesg")
            status, told = person.end("/ # ", "poweroff -f")
        assert status == 0, told


class TestShim:
    """xen-shim: a Xen that is a PVH guest and runs one PV guest, to which it passes console and xenstore on."""

    def test_without_a_guest_it_says_what_it_misses(self, specimen: Callable[[str], Path]) -> None:
        """The status is a crash's, and the banner and the reason are heard."""
        words = ["--cmdline", "pv-shim console=pv", specimen("xen-shim")]
        with Person(*words) as person:
            person.see("dom0 kernel not specified")
            person.see("Crash in five seconds")
            _, told = person.process.communicate(timeout=60)
        assert person.process.returncode == 11
        assert "sched_op(shutdown, crash)" in told

    def test_grub_is_its_pv_guest(self, specimen: Callable[[str], Path]) -> None:
        """What the guest types at and is told comes through two hypervisors; so does its power-off."""
        words = ["--cmdline", "pv-shim console=pv", "--module", specimen("grub-x86_64-xen.bin"), specimen("xen-shim")]
        with Person(*words) as person:
            before = person.see("Welcome to GRUB!")
            assert re.search(r"\(XEN\) Xen version 4\.\d+", before)
            assert "Running on Xen" in before
            assert "Platform timer is 1000.000MHz XEN PV CLOCK" in before
            assert "(memdisk)" in plain(person.ask(GRUB, "ls"))
            status, told = person.end(GRUB, "halt")
        assert status == 0
        assert "sched_op(shutdown, poweroff)" in told.splitlines()[-1]

    @pytest.mark.slow
    def test_debians_kernel_is_its_pv_guest(self, specimen: Callable[[str], Path], tmp_path: Path) -> None:
        initrd = shell(specimen("busybox"), tmp_path / "initrd")
        kernel = f"{specimen('vmlinuz-cloud-6.1')},earlyprintk=xen console=hvc0"
        words = ["--cmdline", "pv-shim console=pv", "--module", kernel, "--module", initrd, specimen("xen-shim")]
        with Person(*words) as person:
            assert person.ask("/ # ", "cat /sys/hypervisor/type /sys/hypervisor/guest_type") == "xen\nPV\n"
            status, told = person.end("/ # ", "poweroff -f")
        assert status == 0
        assert "sched_op(shutdown, poweroff)" in told.splitlines()[-1]
