"""What comes with the package to try it with: a tiny kernel, and a tiny initramfs for Linux.

Their sources are tests/guests/demo.S and init.S; tests/guests/build.py builds them.
"""

from __future__ import annotations

import os

_HERE = os.path.dirname(os.path.abspath(__file__))


def demo_path() -> str:
    """Return the path of the demo kernel, an ELF of a few KB: it says what a PVH guest is given, and powers off.

    >>> pvh.demo_path().endswith("hello.elf")
    True
    """
    return os.path.join(_HERE, "hello.elf")


def demo_initramfs() -> bytes:
    """Return an initramfs whose /init says hello from user space and powers the machine off."""
    from pvh.initramfs import archive, program

    with open(os.path.join(_HERE, "init"), "rb") as file:
        return archive([program("init", file.read())])
