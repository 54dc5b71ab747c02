"""vcpu_hvm_context by offset (facts/xen-abi.md, 8), independent of the package's own idea of it."""

from __future__ import annotations

import struct

OFFSETS_32B = {
    **{name: (8 + 4 * i, "<I") for i, name in enumerate(("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"))},
    **{name: (40 + 4 * i, "<I") for i, name in enumerate(("eip", "eflags", "cr0", "cr3", "cr4", "pad1"))},
    "efer": (64, "<Q"),
    **{f"{name}_base": (72 + 4 * i, "<I") for i, name in enumerate(("cs", "ds", "ss", "es", "tr"))},
    **{f"{name}_limit": (92 + 4 * i, "<I") for i, name in enumerate(("cs", "ds", "ss", "es", "tr"))},
    **{f"{name}_ar": (112 + 2 * i, "<H") for i, name in enumerate(("cs", "ds", "ss", "es", "tr"))},
    **{f"pad2_{i}": (122 + 2 * i, "<H") for i in range(3)},
}
OFFSETS_64B = {
    name: (8 + 8 * i, "<Q")
    for i, name in enumerate(
        ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "rip", "rflags", "cr0", "cr3", "cr4", "efer", "tail")
    )
}
HEAD = {"mode": (0, "<I"), "pad": (4, "<I")}

# hvmloader's: flat 32-bit protected mode, as tools/firmware/hvmloader/smp.c starts its processors
FLAT = {
    "eip": 0x1000,
    "cr0": 1,
    **{f"{name}_limit": 0xFFFFFFFF for name in ("cs", "ds", "ss", "es")},
    "tr_limit": 0x67,
    "cs_ar": 0xC9B,
    "ds_ar": 0xC93,
    "ss_ar": 0xC93,
    "es_ar": 0xC93,
    "tr_ar": 0x8B,
}
LONG = {"mode": 1, "rip": 0x1000, "cr0": 0x80000001, "cr3": 0x10000, "cr4": 1 << 5, "efer": 1 << 8}


def _make(offsets: dict[str, tuple[int, str]], values: dict[str, int]) -> bytes:
    raw = bytearray(128)
    for name, value in values.items():
        at, layout = (HEAD | offsets)[name]
        struct.pack_into(layout, raw, at, value)
    return bytes(raw)


def mode_32b(**changes: int) -> bytes:
    """A flat 32-bit start that Xen accepts, with changes."""
    return _make(OFFSETS_32B, FLAT | changes)


def mode_64b(**changes: int) -> bytes:
    """A 64-bit start that Xen accepts, with changes."""
    return _make(OFFSETS_64B, LONG | changes)
