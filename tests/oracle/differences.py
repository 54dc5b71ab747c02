"""Where our guests say something else on real Xen 4.17 than here. docs/oracle.md gives the reasons, by name."""

from __future__ import annotations

# Guests that print no table. Lines are a diff's, ours with -, Xen's with +, in the order of the output.
OF_LINES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "demo": (
        (
            "acpi-type",
            (
                "-  0x00000000fc000000 - 0x00000000fc000fff NVS",
                "-  0x00000000fc001000 - 0x00000000fc001fff NVS",
                "-  0x00000000fc002000 - 0x00000000fc00203f NVS",
            ),
        ),
        (
            "memmap-order",
            (
                "+  0x00000000fc008000 - 0x00000000fc00803f ACPI",
                "+  0x00000000fc000000 - 0x00000000fc000fff ACPI",
                "+  0x00000000fc001000 - 0x00000000fc007fff ACPI",
            ),
        ),
        ("xen-version", ("-Xen 4.20", "+Xen 4.17")),
    ),
}

_MODES = ("16", "32", "paged", "compat", "64")
_RFLAGS = ("eflags", "ss.pushed")
_NONE = ("64", "ss.pushed")
_PHYS = tuple(
    f"s8.{area}-phys{case}"
    for area in ("runstate", "time")
    for case in ("", "-again", "-crossing", "-misaligned", "-hole", "-unregister", "-unmapped")
)
_NOT_OFFERED = (0x1A, 0x29, 0x31)

# Guests that print a table, `name=value`: the names whose values differ.
OF_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "personality": {
        "xen-version": ("leaf01.00", "xen_version00", "xen_version01", "hypercall11"),
        "xen-build": ("xen_version02", "xen_version04"),
        "features": ("xen_version06",),
        "denied": ("xen_version09", "xen_version0a"),
        "tsc-reliable": ("leaf03.00",),
        "reservations": ("memory_op02", "memory_op03"),
        "memmap-order": ("memory_map01", "memory_map02", "memory_map03", "memory_map04"),
        "vendor": ("stub00", "stub01", "stub18", "stub7f"),
        "not-offered": tuple(f"hypercall{number:02x}" for number in _NOT_OFFERED),
        "console-write": ("hypercall12",),
    },
    "vcpuop": {
        "processor": (
            *("cpuid.0x1.0.ecx", "cpuid.0x1.0.edx", "cpuid.0x7.0.ebx"),
            *("cpuid.0x80000001.0.ecx", "cpuid.0x80000001.0.edx"),
            *(f"s8.{width}cr4-bit.{bit}" for width in ("", "64-") for bit in (0, 1, 20, 21)),
        ),
        "cr0-et": tuple(f"ap-{mode}.cr0" for mode in _MODES),
        "rflags-reserved": tuple(f"ap-{mode}.{name}" for mode in _MODES for name in _RFLAGS if (mode, name) != _NONE),
        "info-checks": ("s8.info-offset-4096", "s8.info-offset-ffffffff", "s8.info-twice"),
        "phys-areas": _PHYS,
    },
}

# What differs from run to run: the domain's number and handle, the processor's clock, and how much Xen has written of a
# runstate area. It writes as much as the caller's width asks for at the registration, 44 bytes for 32 bits, and as
# shared_info's width asks for, 48, whenever the vCPU is scheduled anew, into the area registered last.
VOLATILE = (
    (r"^(leaf03\.00=.{18}).{8}", r"\1<kHz>"),
    (r"^(leaf03\.01=).*", r"\1<offset, scale>"),
    (r"^(leaf03\.02=).{8}", r"\1<kHz>"),
    (r"^(leaf04\.00=.{18}).{8}", r"\1<domain>"),
    (r"^(xen_version08=.{9}).{32}", r"\1<handle>"),
    (r"^((?!long)\w+\.runstate(-area)?-bytes=).*", r"\1<44 or 48; 0 or 48 in ring 3>"),
)
