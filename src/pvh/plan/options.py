"""BootOptions: everything a person may ask of a boot, in one record, from the command line to the plan."""

from __future__ import annotations

from pvh.hints import Literal
from pvh.plan.variation import AS_XEN, Variation
from pvh.record import dataclass

Abi = Literal["v1", "v0", "draft-c"]
Platform = Literal["xen", "bare"]
EngineName = Literal["auto", "kvm", "emulator"]
ClockName = Literal["host", "instructions"]

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A file to hand to the kernel, and its own command line (None: no command line, cmdline_paddr 0).

    >>> modules = pvh.ModuleSpec("initrd.img"), pvh.ModuleSpec("settings", "quiet")
    >>> pvh.BootOptions(modules=modules).modules[1].cmdline
    'quiet'
    """

    path: str
    cmdline: str | None = None


@dataclass(frozen=True, slots=True)
class BootOptions:
    """How to boot a kernel.

    memory      guest RAM in bytes, a multiple of 4 KiB
    vcpus       processors, 1 to 128
    cmdline     the kernel's command line, UTF-8 bytes without a NUL ("": none, cmdline_paddr 0)
    modules     in order; the first is Linux's initrd
    abi         layout of start_info: version 1 (with memmap), version 0, or Draft C's 20 bytes
    platform    xen: libxl's PVH domU. bare: local APIC, CPUID 0x15/0x16, a 16550, no Xen leaves
    engine      auto, kvm or emulator
    clock       host, or instructions: time is what the guest executed, and a run can be repeated (emulator only)
    privileged, initdomain   SIF_PRIVILEGED, SIF_INITDOMAIN in start_info.flags
    copy        read files into guest RAM; never map them
    patch       KVM without KVM_CAP_XEN_HVM may replace VMCALL/VMMCALL in the guest's code
    timeout     seconds of host time until the run ends with status 13; None: no deadline
    trace       path for JSON lines of every exit
    core        path for an ELF core of the guest at its end
    variation   what is to be otherwise than libxenguest has it, where the ABI leaves it open

    >>> options = pvh.BootOptions(memory=64 << 20, vcpus=2, cmdline="console=hvc0")
    >>> options.engine, options.platform, options.timeout
    ('auto', 'xen', None)
    """

    memory: int = 512 * MIB
    vcpus: int = 1
    cmdline: str = ""
    modules: tuple[ModuleSpec, ...] = ()
    abi: Abi = "v1"
    platform: Platform = "xen"
    engine: EngineName = "auto"
    clock: ClockName = "host"
    privileged: bool = False
    initdomain: bool = False
    copy: bool = False
    patch: bool = True
    timeout: float | None = None
    trace: str | None = None
    core: str | None = None
    variation: Variation = AS_XEN
