"""Debian's generic kernel to its user space on the genuine KVM, inside QEMU TCG (issue 4, acceptance 3)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pvh.demo import demo_initramfs

pytestmark = pytest.mark.nested

Boot = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def boot(root: Path, specimen: Callable[[str], Path]) -> Boot:
    """Return a function that runs `pvh run --engine kvm` inside, with the stock bzImage, options and files."""

    def run(*options: str, files: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        kernel = specimen("vmlinuz-generic-6.1")
        added = [word for path in (kernel, *files) for word in ("--add", str(path))]
        machine = ["-m", "tools.nested.run", "--memory", "1536", "--timeout", "600", *added, "--"]
        words = [*machine, "-m", "pvh", "run", "--engine", "kvm", *options, kernel.name]
        return subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("vcpus", [1, 2])
def test_linux_reaches_its_user_space_and_powers_off(boot: Boot, tmp_path: Path, vcpus: int) -> None:
    initrd = tmp_path / "hello.cpio"
    initrd.write_bytes(demo_initramfs())
    done = boot("--vcpus", str(vcpus), "--initrd", initrd.name, files=(initrd,))
    assert done.returncode == 0, (done.stdout, done.stderr)
    for line in ("Booting kernel on Xen PVH", f"smp: Brought up 1 node, {vcpus} CPU", "Hello from user space: "):
        assert line in done.stdout
    assert done.stdout.splitlines()[-1].startswith("pvh: poweroff after ")


def test_a_shell_command_runs_on_two_processors_and_its_status_comes_back(
    boot: Boot, specimen: Callable[[str], Path]
) -> None:
    """taskset moves the shell from one processor to the other, which takes interrupts between the two."""
    command = "nproc; for cpu in 0 1 0 1; do taskset -c $cpu cat /sys/hypervisor/type /proc/self/stat; done; exit 7"
    busybox = specimen("busybox")
    done = boot("--vcpus", "2", "--busybox", busybox.name, "--exec", command, files=(busybox,))
    assert done.returncode == 7, (done.stdout, done.stderr)
    said = done.stdout.splitlines()
    assert "2" in said
    assert said.count("xen") == 4
    ran_on = [line.split()[38] for line in said if " (cat) R " in line]  # field 39 of proc_pid_stat(5): the processor
    assert ran_on == ["0", "1", "0", "1"]
