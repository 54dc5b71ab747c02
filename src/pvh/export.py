"""The same boot elsewhere: xl, QEMU, Firecracker, Cloud Hypervisor; and what cannot be said there.

xl: docs/man/xl.cfg.5.pod.in. QEMU: qemu-options.hx, hw/i386/x86.c. Firecracker: docs/getting-started.md and
src/firecracker/swagger/firecracker.yaml. Cloud Hypervisor: docs/cli and its README.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

from pvh.errors import UsageError
from pvh.kernel.record import Kernel
from pvh.kernel.source import STANDARD_INPUT
from pvh.plan.options import MIB, BootOptions
from pvh.record import dataclass

_FIRECRACKER_VCPUS = 32


@dataclass(frozen=True, slots=True)
class Export:
    """What boots the same thing in another VMM.

    text     a configuration file, or a shell's command line
    missing  what cannot be said there, each a sentence's part
    """

    text: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A VMM.

    write  gives its text for a kernel's path and options
    xen    it is Xen, or else a bare board
    elf    it takes PVH kernels as uncompressed ELF files only
    """

    name: str
    write: Callable[[str, BootOptions], str]
    xen: bool = False
    elf: bool = True
    vcpus: int = 128


def export(target: str, kernel: Kernel, options: BootOptions, vmlinux: str | None = None) -> Export:
    """Say a boot in another VMM's words. vmlinux: where the ELF file inside a wrapped kernel is kept.

    Raises UsageError for an unknown target, and for a kernel out of standard input that is kept nowhere.
    """
    vmm = TARGETS.get(target)
    if vmm is None:
        raise UsageError(f"no way to export to {target!r}", hint=f"there are {', '.join(TARGETS)}")
    wrapped = len(kernel.layers) > 1
    if kernel.path == STANDARD_INPUT and not vmlinux:
        raise UsageError("a kernel from standard input has no name that another VMM could read", path=kernel.path,
                         hint="name its file, or have it written: --vmlinux FILE")  # fmt: skip
    path = vmlinux if vmlinux and (kernel.path == STANDARD_INPUT or (wrapped and vmm.elf)) else kernel.source.path
    missing = list(_missing(vmm, options))
    if wrapped and vmm.elf and not vmlinux:
        missing.insert(0, f"the PVH entry of a {kernel.layers[0].format} (--vmlinux FILE writes the ELF file in it)")
    return Export(vmm.write(path, options), tuple(missing))


def _missing(vmm: Target, options: BootOptions) -> list[str]:
    """Name what the options ask for and the VMM cannot do."""
    bare = options.platform == "bare"
    checks = (
        (not vmm.xen and not bare, "Xen: hypercalls, event channels, PV console, xenstore (the guest finds none)"),
        (not vmm.xen and "hvc0" in options.cmdline, "console=hvc0, which is Xen's: the serial port is ttyS0"),
        (vmm.xen and bare, "a board without Xen (--platform bare)"),
        (len(options.modules) > 1, f"modules behind the first ({len(options.modules) - 1})"),
        (any(module.cmdline is not None for module in options.modules), "a module's command line"),
        (options.abi != "v1", f"start_info of {options.abi}: it is of version 1"),
        (options.privileged, "SIF_PRIVILEGED"),
        (options.initdomain, "SIF_INITDOMAIN"),
        (vmm.name in ("xl", "firecracker") and options.memory % MIB != 0, "memory in parts of a MiB: it is cut"),
        (options.vcpus > vmm.vcpus, f"more than {vmm.vcpus} processors"),
        (options.timeout is not None, "a deadline (--timeout)"),
    )
    return [what for is_so, what in checks if is_so]


def _xl(kernel: str, options: BootOptions) -> str:
    name = os.path.basename(kernel).removesuffix(".elf") or "guest"
    lines = [
        f"name = {_quoted(name)}",
        'type = "pvh"',
        f"kernel = {_quoted(os.path.abspath(kernel))}",
        *(f"ramdisk = {_quoted(os.path.abspath(module.path))}" for module in options.modules[:1]),
        *([f"cmdline = {_quoted(options.cmdline)}"] if options.cmdline else ()),
        f"memory = {options.memory // MIB}",
        f"vcpus = {options.vcpus}",
        *(f'{event} = "destroy"' for event in ("on_poweroff", "on_reboot", "on_crash")),
    ]
    return "# xl create -c THIS-FILE\n" + "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    """Quote for xl.cfg: libxlu reads backslashes as C does (tools/libs/util/libxlu_cfg.c, xlu__cfgl_dequote)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _qemu(kernel: str, options: BootOptions) -> str:
    size = f"{options.memory // MIB}M" if options.memory % MIB == 0 else f"{options.memory // 1024}K"
    return _command(
        ("qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-accel", "tcg"),
        ("-m", size, "-smp", str(options.vcpus)),
        ("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        ("-chardev", "stdio,id=console,mux=on", "-serial", "chardev:console"),
        ("-device", "isa-debugcon,iobase=0xe9,chardev=console"),
        ("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),  # ends QEMU with twice the value and one
        ("-kernel", kernel),
        *(("-initrd", module.path.replace(",", ",,")) for module in options.modules[:1]),
        ("-append", options.cmdline) if options.cmdline else (),
    )


def _firecracker(kernel: str, options: BootOptions) -> str:
    import json  # one target of four

    source = {"kernel_image_path": os.path.abspath(kernel), "boot_args": options.cmdline}
    if options.modules:
        source["initrd_path"] = os.path.abspath(options.modules[0].path)
    machine = {"vcpu_count": options.vcpus, "mem_size_mib": options.memory // MIB}
    return json.dumps({"boot-source": source, "drives": [], "machine-config": machine}, indent=2) + "\n"


def _cloud_hypervisor(kernel: str, options: BootOptions) -> str:
    return _command(
        ("cloud-hypervisor", "--kernel", kernel),
        *(("--initramfs", module.path) for module in options.modules[:1]),
        ("--cmdline", options.cmdline) if options.cmdline else (),
        ("--cpus", f"boot={options.vcpus}", "--memory", f"size={options.memory}"),
        ("--serial", "tty", "--console", "off"),
    )


def _command(*parts: tuple[str, ...]) -> str:
    """Return a shell's command line, a part on each line."""
    return " \\\n  ".join(shlex.join(part) for part in parts if part) + "\n"


TARGETS = {
    target.name: target
    for target in (
        Target("xl", _xl, xen=True, elf=False),
        Target("qemu", _qemu),
        Target("firecracker", _firecracker, vcpus=_FIRECRACKER_VCPUS),
        Target("cloud-hypervisor", _cloud_hypervisor),
    )
}
