"""A tiny kernel that comes with the package: it says what a PVH guest is given, and powers off.

Its source is tests/guests/demo.S; tests/guests/build.py builds it.
"""

from __future__ import annotations

import os


def demo_path() -> str:
    """Return the path of the demo kernel, an ELF of a few KB."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "hello.elf")
