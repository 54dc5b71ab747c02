"""Where our guests say something else on real Xen 4.17 than here. docs/oracle.md gives the reasons, by name.

Lines are a diff's, ours with -, Xen's with +, in the order of the output.
"""

from __future__ import annotations

# Event channel ports that are there before the guest runs.
PORTS = {"xen": {"store": 1, "console": 2}, "pvh": {"console": 1}}

OF_GUESTS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
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
