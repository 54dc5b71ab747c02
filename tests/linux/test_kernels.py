"""Debian's kernels as PVH guests, from the files Debian ships, to a shell on hvc0 in which a person types."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from linux.person import Person, shell
from pvh.initramfs import Entry, archive, program
from pvh.kernel.read import read_kernel

PROMPT = "/ # "
SLOW = pytest.mark.slow
# What a kernel says of each thing that it takes from Xen, and not from hardware.
FROM_XEN = (
    "Hypervisor detected: Xen HVM",
    "Booting kernel on Xen PVH",
    "ACPI: RSDP 0x00000000FC002000 000024 (v02 Xen",
    "xen:events: Using 2-level ABI",
    "xen:events: Xen HVM callback vector for event delivery is enabled",
    "Xen: using vcpuop timer interface",
    "xen:grant_table: Grant tables using version 1 layout",
)


@pytest.fixture
def initrd(specimen: Callable[[str], Path], tmp_path: Path) -> str:
    return shell(specimen("busybox"), tmp_path / "initrd")


@pytest.mark.parametrize(
    ("name", "vcpus"),
    [
        ("vmlinuz-cloud-6.1", 4),
        ("vmlinuz-generic-6.1", 1),
        ("vmlinuz-6.12", 1),
        pytest.param("vmlinuz-generic-6.1", 4, marks=SLOW),
        pytest.param("vmlinuz-generic-6.12", 4, marks=SLOW),
    ],
)
def test_a_shell_on_hvc0(specimen: Callable[[str], Path], initrd: str, name: str, vcpus: int) -> None:
    """Issue 4, acceptance 1: who it is, which processors it has, and that all it needs is Xen's; then it powers off."""
    kernel = specimen(name)
    release = re.escape(read_kernel(str(kernel)).linux_version.split()[0])
    with Person("--vcpus", vcpus, "--initrd", initrd, kernel) as person:
        assert re.match(rf"Linux \(none\) {release} #1 SMP .* x86_64 GNU/Linux\n", person.ask(PROMPT, "uname -a"))
        processors = person.ask(PROMPT, "cat /proc/cpuinfo")
        assert re.findall(r"^processor\s*: (\d+)$", processors, re.MULTILINE) == [str(n) for n in range(vcpus)]
        assert set(re.findall(r"^vendor_id\s*: (\w+)$", processors, re.MULTILINE)) == {"AuthenticAMD"}
        messages = person.ask(PROMPT, "dmesg | grep -i xen")
        assert [line for line in FROM_XEN if line not in messages] == []
        assert re.findall(r"installing Xen timer for CPU (\d+)", messages) == [str(n) for n in range(vcpus)]
        # On a busy machine the kernel may say first that "hrtimer: interrupt took 16792529 ns".
        assert person.ask(PROMPT, "cat /sys/hypervisor/type /sys/hypervisor/guest_type").endswith("xen\nPVH\n")
        # Since 6.3 Linux prefers the TSC where Xen's CPUID leaves say that it is steady (xen_tsc_safe_clocksource).
        clock = person.ask(PROMPT, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
        assert clock.startswith("xen" if "-6.1" in name and "-6.12" not in name else "tsc")
        status, told = person.end(PROMPT, "poweroff -f")
    assert status == 0
    assert "console=hvc0 is added" in told
    assert told.splitlines()[-1].startswith("pvh: poweroff after ")


def test_ctrl_c_is_for_the_job_in_the_foreground(specimen: Callable[[str], Path], initrd: str) -> None:
    with Person("--initrd", initrd, specimen("vmlinuz-cloud-6.1")) as person:
        person.see(PROMPT)
        person.type("echo he''re; sleep 1000\r")  # "here" is output, not the echo of what was typed
        person.see("here\n")
        person.type("\x03")
        while PROMPT not in person.seen:
            try:
                person.see(PROMPT, 5)
            except AssertionError:
                person.type("\x03")  # the first came before the shell had made `sleep` the foreground job
            else:
                break
        person.type("reboot -f\r")
        person.process.communicate(timeout=120)
    assert person.process.returncode == 10


@pytest.mark.parametrize(("command", "ends"), [("poweroff -f", 0), pytest.param("reboot -f", 10, marks=SLOW)])
def test_debians_own_initrd(specimen: Callable[[str], Path], command: str, ends: int) -> None:
    """initramfs-tools, by its defaults: udev runs, no root file system is named, and so its shell opens."""
    prompt = "(initramfs) "
    with Person("--initrd", specimen("initrd-cloud-6.1"), specimen("vmlinuz-cloud-6.1")) as person:
        before = person.see("No root device specified. Boot arguments must include a root= parameter.")
        assert "Starting systemd-udevd" in before
        assert person.ask(prompt, "cat /sys/hypervisor/type; echo $((6 * 7))") == "xen\n42\n"
        modules = person.ask(prompt, "modprobe xen-blkfront; modprobe xen-netfront; cat /proc/modules")
        assert {"xen_blkfront", "xen_netfront"} <= set(re.findall(r"^\w+", modules, re.MULTILINE))
        status, told = person.end(prompt, command)
    assert status == ends, told


@SLOW
def test_without_xen_it_boots_when_told_the_tscs_frequency(specimen: Callable[[str], Path], tmp_path: Path) -> None:
    """On --platform bare, where nothing but the local APIC's timer ticks. Nothing can power such a board off."""
    programs = (
        program("bin/busybox", specimen("busybox").read_bytes()),
        program("init", b"#!/bin/busybox sh\n/bin/busybox poweroff -f\n"),
    )
    (tmp_path / "initrd").write_bytes(archive([Entry("bin", stat.S_IFDIR | 0o755), *programs]))
    words = ["--platform", "bare", "--cmdline", "console=ttyS0 panic=-1", "--initrd", tmp_path / "initrd"]
    with Person(*words, specimen("vmlinuz-cloud-6.1")) as person:
        messages = person.see("reboot: System halted")
        _, told = person.process.communicate(timeout=60)
    assert "Run /init as init process" in messages
    assert "Hypervisor detected" not in messages
    assert "tsc_early_khz=" in told
    assert person.process.returncode == 13
