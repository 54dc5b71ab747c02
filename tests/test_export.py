"""The same boot in other VMMs' words."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pvh.cli import main
from pvh.errors import UsageError
from pvh.export import TARGETS, export
from pvh.kernel.read import read_kernel
from pvh.kernel.record import Kernel, Layer
from pvh.kernel.source import STANDARD_INPUT
from pvh.plan.options import GIB, MIB, BootOptions, ModuleSpec

HELLO = Path(__file__).parent / "guests" / "hello.elf"
BARE = BootOptions(platform="bare")


def hello() -> Kernel:
    return read_kernel(str(HELLO))


def wrapped() -> Kernel:
    return replace(hello(), layers=(Layer("bzImage", 0, 1), Layer("ELF64", 0, 1)))


def test_xl_gets_each_value_as_xl_reads_it() -> None:
    options = BootOptions(memory=GIB, vcpus=3, cmdline='a="b c" \\d', modules=(ModuleSpec("some/initrd"),))
    made = export("xl", hello(), options)
    said = dict(line.split(" = ", 1) for line in made.text.splitlines() if not line.startswith("#"))
    values = {key: ast.literal_eval(value) for key, value in said.items()}  # C's escapes are Python's, as far as used
    assert values == {
        "name": "hello",
        "type": "pvh",
        "kernel": str(HELLO),
        "ramdisk": str(Path("some/initrd").absolute()),
        "cmdline": options.cmdline,
        "memory": 1024,
        "vcpus": 3,
        "on_poweroff": "destroy",
        "on_reboot": "destroy",
        "on_crash": "destroy",
    }
    assert made.missing == ()


def test_firecracker_gets_a_whole_configuration() -> None:
    options = replace(BARE, cmdline="x", vcpus=2, modules=(ModuleSpec("/i"),))
    made = export("firecracker", hello(), options)
    assert json.loads(made.text) == {
        "boot-source": {"kernel_image_path": str(HELLO), "boot_args": "x", "initrd_path": "/i"},
        "drives": [],
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 512},
    }
    assert made.missing == ()


def test_commands_are_words_of_a_shell() -> None:
    options = replace(BARE, cmdline="a 'b' $c", modules=(ModuleSpec("my,initrd"),), memory=4 * MIB + 4096)
    words = shlex.split(export("qemu", hello(), options).text.replace("\\\n", ""))
    assert words[words.index("-append") + 1] == options.cmdline
    assert words[words.index("-initrd") + 1] == "my,,initrd", "QEMU splits at single commas"
    assert words[words.index("-m") + 1] == "4100K"
    words = shlex.split(export("cloud-hypervisor", hello(), options).text.replace("\\\n", ""))
    assert words[words.index("--cmdline") + 1] == options.cmdline
    assert words[words.index("--initramfs") + 1] == "my,initrd"
    assert words[words.index("--memory") + 1] == f"size={4 * MIB + 4096}"


@pytest.mark.parametrize("target", [name for name, target in TARGETS.items() if target.elf])
def test_a_wrapped_kernel_needs_its_elf_file(target: str) -> None:
    without = export(target, wrapped(), BARE)
    assert without.missing == ("the PVH entry of a bzImage (--vmlinux FILE writes the ELF file in it)",)
    within = export(target, wrapped(), BARE, "/elf")
    assert "/elf" in within.text
    assert within.missing == ()


@pytest.mark.parametrize(
    ("target", "options", "what"),
    [
        ("xl", BARE, "without Xen"),
        ("xl", BootOptions(memory=MIB + 4096), "cut"),
        ("qemu", BootOptions(), "Xen: "),
        ("qemu", replace(BARE, cmdline="console=hvc0"), "ttyS0"),
        ("qemu", replace(BARE, modules=(ModuleSpec("a"), ModuleSpec("b"))), "behind the first (1)"),
        ("qemu", replace(BARE, modules=(ModuleSpec("a", ""),)), "a module's command line"),
        ("qemu", replace(BARE, abi="draft-c"), "draft-c"),
        ("qemu", replace(BARE, privileged=True), "SIF_PRIVILEGED"),
        ("qemu", replace(BARE, initdomain=True), "SIF_INITDOMAIN"),
        ("qemu", replace(BARE, timeout=1.0), "--timeout"),
        ("firecracker", replace(BARE, vcpus=33), "more than 32"),
    ],
)
def test_what_cannot_be_said_is_named(target: str, options: BootOptions, what: str) -> None:
    (missing,) = export(target, hello(), options).missing
    assert what in missing


def test_an_unknown_vmm_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="xl, qemu, firecracker, cloud-hypervisor"):
        export("vmware", hello(), BARE)


@pytest.mark.parametrize("target", TARGETS)
def test_a_kernel_out_of_standard_input_needs_a_name(target: str) -> None:
    kernel = replace(hello(), path=STANDARD_INPUT)
    with pytest.raises(UsageError, match="has no name that another VMM could read"):
        export(target, kernel, BARE)
    assert "kept.elf" in export(target, kernel, BARE, "kept.elf").text


def test_the_command_writes_the_elf_file_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elf = tmp_path / "vmlinux"
    assert main(["export", "qemu", str(HELLO), "--vmlinux", str(elf), "--json"]) == 0
    assert elf.read_bytes() == HELLO.read_bytes()
    said = json.loads(capsys.readouterr().out)
    assert said["vmm"] == "qemu"
    assert said["missing"][0].startswith("Xen: ")
    assert main(["export", "qemu", str(HELLO)]) == 0
    out, err = capsys.readouterr()
    assert out == said["text"]
    assert "pvh: qemu cannot have Xen: " in err
    assert main(["export", "qemu", str(HELLO), "--vmlinux", str(tmp_path / "no" / "file")]) == 2


def test_the_command_refuses_a_kernel_that_only_it_could_read() -> None:
    with HELLO.open("rb") as kernel:
        command = [sys.executable, "-m", "pvh", "export", "qemu", "-"]
        done = subprocess.run(command, stdin=kernel, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no name that another VMM could read" in done.stderr


@pytest.mark.nested
def test_qemu_boots_what_it_is_told() -> None:
    """Under TCG, for not every KVM is whole; isa-debug-exit ends QEMU with twice the value and one."""
    options = replace(BARE, memory=64 * MIB, cmdline="one word")
    text = export("qemu", read_kernel(str(HELLO)), options).text.replace("-accel kvm ", "")
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("Hello from PVH\n", 1), done.stderr
