"""What the vcpuop guest (tests/guests/vcpuop.S) must print on any Xen, by the rules of the ABI.

Sources, "s8.2" being rule 2 of them: xen: public/vcpu.h, public/hvm/hvm_vcpu.h, arch/x86/hvm/domain.c,
arch/x86/domain.c, common/domain.c, common/compat/domain.c. Plain Python, for the oracle and the nested KVM too.
Hidden parts of segments (limits, the recomputed G) cannot be seen from inside where no instruction checks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pvh.abi.errno import EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO, EPERM

MODES = ("real", "protected16", "flat", "paged", "pae", "compat", "long", "ring3")
_MARK = 0x5045454B
_FLAGS = 0x243CD7  # of the 0xffe4bcfd given: the architecture's bits, and bit 1, which is always 1
_ET = 0x10  # CR0's bit 4 reads as 1 on every processor since the P6 (Intel SDM vol. 3, 2.5)
_RUNNING, _OFFLINE = 0, 3


def expected(said: str, without: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return every line by its name. CPUID's lines are taken from what the guest said: they decide what is valid.

    without  the modes that the guest was told to leave out: pae, ring3
    """
    found = parse(said)
    features = {name: int(value, 16) for name, value in found.items() if name.startswith("cpuid.")}
    results = {"vcpus": found.get("vcpus", "?"), **{name: found[name] for name in features}}
    groups: tuple[Lines, ...] = (
        _vcpu_first(),
        _pointers(),
        _states(),
        _sipi(),
        _contexts32(),
        _contexts64(),
        _sweeps(features),
        _runstate_and_timers(),
        _vcpu_info_and_areas(),
        *(_from_mode(mode) for mode in MODES if mode not in without),
        *(_start(name) for name in _STARTS if name not in without),
    )
    for lines in groups:
        results |= {name: str(value) for name, value in lines}
    return results


def parse(said: str) -> dict[str, str]:
    """Return the lines `name=value` of a run, by name."""
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def differences(said: str, without: frozenset[str] = frozenset()) -> list[str]:
    """Return each line that is not as it must be, one that is missing, one too many."""
    wanted, found = expected(said, without), parse(said)
    odd = [f"no case: {line}" for line in said.splitlines() if "=" not in line]
    return odd + [
        f"{name}: wanted {wanted.get(name, 'no such line')}, found {found.get(name, 'nothing')}"
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name)
    ]


Lines = Iterable[tuple[str, "int | str"]]


def _vcpu_first() -> Iterator[tuple[str, int]]:
    """A vCPU that is not gives -ENOENT before the command is looked at; an unknown command -ENOSYS."""
    for name in ("initialise", "up", "down", "is_up", "runstate", "info", "nmi", "unknown"):
        yield f"s8.{name}-of-vcpu-max", -ENOENT
        yield f"s8.{name}-of-vcpu-ffffffff", -ENOENT
    yield "s8.unknown-16", -ENOSYS
    yield "s8.unknown-ffffffff", -ENOSYS
    yield "s8.get_physid", -EINVAL  # a domU's vCPUs are pinned to nothing


def _pointers() -> Lines:
    """The context is copied in first, then the state is looked at, then the content."""
    return {
        "s8.initialise-unmapped": -EFAULT,
        "s8.initialise-across-the-end-of-ram": -EFAULT,
        "s8.initialise-unmapped-of-bsp": -EFAULT,
        "s8.initialise-all-zero-of-bsp": -EEXIST,
        "s8.initialise-all-zero": -EINVAL,
        "s8.pv-vcpu_guest_context-without-fpu": -EINVAL,
        "s8.pv-vcpu_guest_context": -EINVAL,
    }.items()


def _states() -> Lines:
    return {
        "s8.bsp-is_up": 1,
        "s8.bsp-up": 0,
        "s8.created-is_up": 0,
        "s8.created-up": -EINVAL,
        "s8.created-down": 0,
        "s8.created-downed-is_up": 0,
        "s8.created-unknown": -ENOSYS,
        "s8.created-initialise": 0,
        "s8.initialised-is_up": 0,
        "s8.initialised-initialise": -EEXIST,
        "s8.initialised-initialise-invalid": -EEXIST,
        "s8.initialised-initialise-unmapped": -EFAULT,
        "s8.initialised-down": 0,
        "s8.initialised-downed-is_up": 0,
        "s8.initialised-unknown": -ENOSYS,
        "s8.initialised-up": 0,
        "s8.up-is_up": 1,
        "s8.up-runs": 1,
        "s8.up-up": 0,
        "s8.up-initialise": -EEXIST,
        "s8.up-unknown": -ENOSYS,
        "s8.up-down": 0,
        "s8.down-is_up": 0,
        "s8.down-runs": 0,
        "s8.down-down": 0,
        "s8.down-initialise": -EEXIST,
        "s8.down-unknown": -ENOSYS,
        "s8.down-up": 0,
        "s8.up-again-runs": 1,
        "s8.up-again-down": 0,
        "s8.up-again-up": 0,
        "s8.after-init-is_up": 0,
        "s8.after-init-up": -EINVAL,
        "s8.after-init-initialise": 0,
        "s8.after-init-initialised-is_up": 0,
        "s8.init-of-initialised-up": -EINVAL,
        "s8.lifter-initialise": 0,
        "s8.lifter-up": 0,
        "s8.bsp-down-with-another-up": 0,
        "s8.bsp-was-brought-up": 0,
        "s8.lifter-down-by-itself-is_up": 0,
    }.items()


def _sipi() -> Lines:
    """A SIPI starts real mode at vector << 12 on a vCPU that is not initialised, and does nothing on one that is."""
    results: dict[str, int | str] = {
        "s8.sipi-initialise": 0,
        "s8.sipi-on-initialised-is_up": 0,
        "s8.init-then-up": -EINVAL,
        "sipi.eflags": "00000002",
        "sipi.cr0": "00000010",
        "sipi.cr3": "00000000",
        "sipi.cr4": "00000000",
        "sipi.efer": "00000000",
        "sipi.cs": "00000700",
        "sipi.ds": "00000000",
        "s8.after-sipi-is_up": 1,
        "s8.after-sipi-initialise": -EEXIST,
        "s8.after-sipi-down": 0,
        "s8.after-sipi-downed-is_up": 0,
    }
    return results.items()


_REFUSED32 = """
mode-2 mode-ffffffff
1-pad 1-pad-high 1-pad1 1-pad1-high 1-pad2-0 1-pad2-1 1-pad2-2
2-cs-ar-0 2-ss-ar-0
2-cs-data 2-ss-code 2-ss-read-only 2-ss-expand-down-read-only 2-ds-code-execute-only 2-es-code-execute-only
3-tr-not-system 3-tr-not-present 3-tr-ar-0 3-tr-16-bit-tss 3-tr-16-bit-tss-not-busy 3-tr-ldt 3-tr-call-gate
3-tr-trap-gate
4-eip-above-limit 4-eip-above-limit-in-pages 4-eip-above-limit-that-wraps
5-ss-dpl-above-cs 5-ss-dpl-below-cs
6-ds-dpl-above-cs 6-es-dpl-above-cs 6-ds-dpl-above-cs-dpl-2
7-lma-without-lme
"""

_TAKEN32 = """
32-flat
2-ds-ar-0 2-es-ar-0 2-ds-and-es-ar-0
2-cs-execute-only 2-cs-conforming 2-cs-16-bit 2-cs-l-bit
2-ss-expand-down
2-ds-code-readable 2-ds-read-only 2-ds-expand-down 2-es-code-readable 2-es-read-only 2-es-expand-down
3-tr-not-busy 3-tr-g 3-tr-dpl-3
4-eip-at-limit 4-eip-at-limit-in-pages 4-eip-at-limit-that-wraps 4-eip-highest-in-bytes 4-eip-highest-in-pages
4-eip-0-limit-0
5-all-dpl-3 5-cs-and-ss-dpl-3
6-es-dpl-at-cs-dpl-2 6-ds-ar-0-cs-dpl-1
7-lma-with-lme 7-lme-with-paging 7-lme-with-paging-without-pae
cr0-0 cr0-pg-without-pe cr0-nw-without-cd cr0-ffffffff cr3-ffffffff eflags-ffffffff gprs-and-bases-ffffffff limits-0
"""


def _contexts32() -> Iterator[tuple[str, int]]:
    """Mode 32B: each rule broken alone, and what is just inside. CR0, CR3 and the registers are taken as they are."""
    for name in _REFUSED32.split():
        yield f"s8.{name}", -EINVAL
    for name in _TAKEN32.split():
        yield f"s8.{name}", 0
    for rule, segment in ((2, "cs"), (2, "ss"), (2, "ds"), (2, "es"), (3, "tr")):
        for bit in range(12, 16):
            yield f"s8.{rule}-{segment}-ar-bit-{bit}", -EINVAL
    for segment in ("cs", "ss", "ds", "es"):
        for name in ("system", "not-present", "only-g"):
            yield f"s8.2-{segment}-{name}", -EINVAL
        for name in ("not-accessed", "avl"):
            yield f"s8.2-{segment}-{name}", 0


_REFUSED64 = "pad rip-above-low rip-below-high rip-bit-63 without-pg without-pae without-lme lma-without-lme"
_TAKEN64 = """
least tail-ignored rip-highest-low rip-lowest-high rip-highest without-pe lma-with-lme
cr0-ffffffff cr3-ffffffffffffffff rflags-ffffffffffffffff gprs-ffffffffffffffff
"""


def _contexts64() -> Iterator[tuple[str, int]]:
    """Mode 64B: a canonical RIP, paging, PAE and LME; the last 8 bytes are ignored."""
    for name in _REFUSED64.split():
        yield f"s8.64-{name}", -EINVAL
    for name in _TAKEN64.split():
        yield f"s8.64-{name}", 0


# Bit of CR4 or EFER: the CPUID lines and bits of which one must be set (hvm_cr4_guest_valid_bits, hvm_efer_valid).
_LEAF1C, _LEAF1D = "cpuid.0x1.0.ecx", "cpuid.0x1.0.edx"
_LEAF7B, _LEAF7C, _LEAF7D, _LEAF71 = "cpuid.0x7.0.ebx", "cpuid.0x7.0.ecx", "cpuid.0x7.0.edx", "cpuid.0x7.1.eax"
_EXT_C, _EXT_D = "cpuid.0x80000001.0.ecx", "cpuid.0x80000001.0.edx"
_ALWAYS = ((_LEAF1C, 31),)  # a hypervisor is below
_CR4: dict[int, tuple[tuple[str, int], ...]] = {
    0: ((_LEAF1D, 1),),  # VME
    1: ((_LEAF1D, 1),),  # PVI: VME
    2: ((_LEAF1D, 4),),  # TSD: TSC
    3: ((_LEAF1D, 2),),  # DE
    4: ((_LEAF1D, 3),),  # PSE
    5: ((_LEAF1D, 6),),  # PAE
    6: ((_LEAF1D, 7), (_LEAF1D, 14)),  # MCE: MCE or MCA
    7: ((_LEAF1D, 13),),  # PGE
    8: _ALWAYS,  # PCE
    9: ((_LEAF1D, 24),),  # OSFXSR: FXSR
    10: ((_LEAF1D, 25),),  # OSXMMEXCPT: SSE
    11: ((_LEAF7C, 2),),  # UMIP
    13: ((_LEAF1C, 5),),  # VMXE: VMX, which only nested virtualisation shows
    16: ((_LEAF7B, 0),),  # FSGSBASE
    17: ((_LEAF1C, 17),),  # PCIDE: PCID
    18: ((_LEAF1C, 26),),  # OSXSAVE: XSAVE
    20: ((_LEAF7B, 7),),  # SMEP
    21: ((_LEAF7B, 20),),  # SMAP
    22: ((_LEAF7C, 3),),  # PKE: PKU
    23: ((_LEAF7C, 7), (_LEAF7D, 20)),  # CET: shadow stacks or IBT
    24: ((_LEAF7C, 31),),  # PKS
    27: ((_LEAF71, 6),),  # LASS
}
_EFER: dict[int, tuple[tuple[str, int], ...]] = {
    0: ((_EXT_D, 11),),  # SCE: SYSCALL
    8: ((_EXT_D, 29),),  # LME: LM
    11: ((_EXT_D, 20),),  # NXE: NX
    12: ((_EXT_C, 2),),  # SVME: SVM, which only nested virtualisation shows
    14: ((_EXT_D, 25),),  # FFXSE: FFXSR
    21: (("cpuid.0x80000021.0.eax", 8),),  # AIBRSE: automatic IBRS
}


def _sweeps(features: dict[str, int]) -> Iterator[tuple[str, int]]:
    """One INITIALISE for each bit, inverted: 0 where the bit is valid."""

    def valid(table: dict[int, tuple[tuple[str, int], ...]], bit: int) -> bool:
        return any(features.get(line, 0) >> place & 1 for line, place in table.get(bit, ()))

    for bit in range(32):
        yield f"s8.cr4-bit.{bit}", 0 if valid(_CR4, bit) else -EINVAL
    for bit in range(64):
        # LMA alone breaks rule 7 in mode 32B; in 64B LME is there already, and is missed when inverted, as PAE is.
        yield f"s8.efer-bit.{bit}", 0 if valid(_EFER, bit) else -EINVAL
        yield f"s8.64-efer-bit.{bit}", 0 if bit == 10 or (valid(_EFER, bit) and bit != 8) else -EINVAL
        yield f"s8.64-cr4-bit.{bit}", 0 if valid(_CR4, bit) and bit != 5 else -EINVAL


def _runstate_and_timers() -> Lines:
    """Periods from 1 ms to below 2^62 ns; a singleshot timer is its own vCPU's, and fires at once when it is past."""
    return {
        "s8.runstate-of-bsp": 0,
        "s8.runstate-of-bsp-state": _RUNNING,
        "s8.runstate-of-created": 0,
        "s8.runstate-of-created-state": _OFFLINE,
        "s8.runstate-of-down": 0,
        "s8.runstate-of-down-state": _OFFLINE,
        "s8.runstate-unmapped": -EFAULT,
        "s8.runstate-area-of-created": 0,
        "s8.runstate-area-again": 0,
        "s8.runstate-area-argument-unmapped": -EFAULT,
        "s8.time-area-of-created": 0,
        "s8.time-area-argument-unmapped": -EFAULT,
        "s8.periodic-too-short": -EINVAL,
        "s8.periodic-shortest": 0,
        "s8.periodic-longest": 0,
        "s8.periodic-too-long": -EINVAL,
        "s8.periodic-unmapped": -EFAULT,
        "s8.periodic-of-another": 0,
        "s8.stop_periodic-of-another": 0,
        "s8.stop_periodic": 0,
        "s8.stop_periodic-again": 0,
        "s8.singleshot": 0,
        "s8.singleshot-past": 0,
        "s8.singleshot-past-future-flag": 0,
        "s8.singleshot-unmapped": -EFAULT,
        "s8.singleshot-of-another": -EINVAL,
        "s8.stop_singleshot-of-another": -EINVAL,
        "s8.stop_singleshot": 0,
    }.items()


def _vcpu_info_and_areas() -> Iterator[tuple[str, int]]:
    """vcpu_info is registered once; areas by physical address as often as one likes (map_guest_area)."""
    yield from {
        "s8.info-offset-4096": -EINVAL,
        "s8.info-offset-ffffffff": -EINVAL,
        "s8.info-gfn-overflow": -EINVAL,
        "s8.info-crossing": -ENXIO,
        "s8.info-misaligned": -ENXIO,
        "s8.info-hole": -EINVAL,
        "s8.info-unmapped": -EFAULT,
        "s8.info-at-the-end": 0,
        "s8.info-at-the-end-pending_sel": -1,
        "s8.info-twice": -EBUSY,
        "s8.info-32-bit-offset-4": 0,
        "s8.info-64-bit-offset-4": -ENXIO,
        "s8.info-64-bit-offset-8": 0,
        "s8.nmi-with-argument": -EINVAL,
        "s8.nmi": 0,
    }.items()
    for name in ("runstate", "time"):
        yield f"s8.{name}-phys", 0
        yield f"s8.{name}-phys-again", 0
        yield f"s8.{name}-phys-crossing", -ENXIO
        yield f"s8.{name}-phys-misaligned", -ENXIO
        yield f"s8.{name}-phys-hole", -EINVAL
        yield f"s8.{name}-phys-unregister", 0
        yield f"s8.{name}-phys-unmapped", -EFAULT


def _from_mode(mode: str) -> Iterator[tuple[str, int]]:
    """Any mode at CPL 0 may call; pointers go through its page tables; all but 64-bit code has 32-bit layouts."""
    paged = mode in ("paged", "pae", "compat", "long")
    runstate = 48 if mode == "long" else 44
    results = {
        "bsp-is_up": 1,
        "created-is_up": 0,
        "vcpu-max-is_up": -ENOENT,
        "unknown": -ENOSYS,
        "created-up": -EINVAL,
        "created-down": 0,
        "high-halves-is_up": 1,  # int cmd, unsigned int vcpuid
        "initialise-32B": 0,
        "initialise-64B": 0,
        "initialise-invalid": -EINVAL,
        "initialise-of-bsp": -EEXIST,
        "initialise-unmapped": -EFAULT,
        "initialise-two-pages": 0 if paged else -EFAULT,  # nothing is mapped at the window without paging
        "initialise-second-page-unmapped": -EFAULT,
        "initialise-first-page-unmapped": -EFAULT,
        "runstate": 0,
        "runstate-bytes": runstate,
        "runstate-second-page-unmapped": -EFAULT,
        "runstate-area": 0,
        "runstate-area-bytes": runstate,
        # The 64-bit structure has 4 bytes of padding behind, which are on the next page.
        "singleshot-of-12-bytes": 0 if paged and mode != "long" else -EFAULT,
        "singleshot-of-another": -EINVAL,
        "stop_singleshot": 0,
        "nmi-with-argument": -EINVAL,
    }
    if mode == "ring3":
        results = {name: 0 if name.endswith(("runstate-bytes", "area-bytes")) else -EPERM for name in results}
    for name, value in results.items():
        yield f"{mode}.{name}", value


# What each AP was given beyond what all were: CR0, CR3, CR4, and EFER as it must be.
_STARTS = {
    "16": (0, 0, 0, 0),
    "32": (1, 0, 0, 0),
    "paged": (0x80000001, 0x10000, 0x10, 0),
    "pae": (0x80000001, 0x19000, 0x20, 0),
    "compat": (0x80000001, 0x12000, 0x20, 0x500),
    "64": (0x80000001, 0x12000, 0x20, 0x500),
}


def _start(name: str) -> Iterator[tuple[str, int | str]]:
    """The state an AP starts in: what it was given, RFLAGS masked, LMA from LME, selectors 0, the rest as at reset.

    Then it goes down, comes up where it stopped, and is reset by an INIT.
    """
    cr0, cr3, cr4, efer = _STARTS[name]
    system = {"eflags": _FLAGS, "cr0": cr0 | _ET, "cr2": 0, "cr3": cr3, "cr4": cr4, "efer": efer}
    values: dict[str, int] = system | {"dr6": 0xFFFF0FF0, "dr7": 0x400}
    values |= dict.fromkeys(("cs", "ds", "es", "ss", "fs", "gs"), 0)
    if name != "16":  # no STR in real mode
        values["tr"] = 0
    if name != "64":  # where the bases are proves itself; in 64-bit code there are none
        values |= {"cs.read": _MARK, "es.written": _MARK, "ss.pushed": _FLAGS}
    results: dict[str, int | str] = {"initialise": 0, "up": 0, "is_up": 0, "up-again": 0, "downs": 2, "down": 0}
    results["up-after-init"] = -EINVAL
    results |= _general_registers(wide=name == "64")
    results |= {key: f"{value:08x}" for key, value in values.items()}
    for key, value in results.items():
        yield f"ap-{name}.{key}", value


def _general_registers(*, wide: bool) -> dict[str, str]:
    """Each byte of a register says which register and which byte it is; the stack pointer is a real one."""
    names = ("ax", "cx", "dx", "bx", "bp", "si", "di")
    size = 8 if wide else 4
    given = {name: bytes(16 * (place + 1) + index for index in range(size)).hex() for place, name in enumerate(names)}
    given["sp"] = f"{0x2000:016x}" if wide else f"{0x30:08x}"
    return {("r" if wide else "e") + name: value for name, value in given.items()}
