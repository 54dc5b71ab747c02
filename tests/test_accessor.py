"""Guest memory is reached through build/ram.py's GuestRam, whose block() checks every range; nothing else has pointers.

Names that make, hold or follow host addresses, wherever they come up in the package, and why they may.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "pvh"

# What follows an address that was computed.
FOLLOWING = frozenset(
    ("from_address", "from_buffer", "string_at", "wstring_at", "memmove", "memset", "memcpy", "memmem")
)
FOLLOWERS = {
    "build/host_memory.py": "makes guest RAM's memory, and the view of each area, as long as the area",
    "build/sigbus.py": "its own code and slots",
    "engines/emulator/libunicorn.py": "the library's registers",
    "engines/emulator/native.py": "a page of machine code and its own data",
    "engines/emulator/vmcb.py": "a page of machine code and its own data",
    "engines/kvm/libcapstone.py": "an instruction that the library made",
    "engines/kvm/patch.py": "searches kernel segments, each inside a block that ram.block() gave",
    "native.py": "pages of machine code",
    "xen/atomics.py": "one LOCKed instruction on an address of ram.host_address() or of memory of its own",
}
# GuestRam's own pointers: Block.host, host_address(); and Physmap.host(), which leads to it.
POINTERS = {
    "build/populated.py": "asks the kernel which pages of a checked range there are",
    "build/ram.py": "itself",
    "engines/emulator/processor.py": "gives whole blocks to the library",
    "engines/kvm/patch.py": "as above",
    "engines/kvm/vm.py": "gives whole blocks to KVM",
    "xen/grants.py": "flags of a grant entry, for xen/atomics.py",
    "xen/physmap.py": "a page, for xen/atomics.py",
    "xen/shared_info.py": "words of shared_info and vcpu_info, for xen/atomics.py",
}


# Who has a .host that is an address: an Area, a Block, and the Physmap; the others are the domain's Host, and a module.
HOLDERS = frozenset(("area", "block", "self._physmap"))
OTHERS = frozenset(("domain", "self._domain", "self", "pvh.xen"))


def attributes() -> Iterator[tuple[str, str, str]]:
    """Yield each attribute the package names: file, what it is of, its name."""
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                yield name, ast.unparse(node.value), node.attr


def test_nobody_else_follows_addresses() -> None:
    assert {file for file, _, name in attributes() if name in FOLLOWING} == set(FOLLOWERS)


def test_nobody_else_asks_for_pointers() -> None:
    hosts = [(file, holder) for file, holder, name in attributes() if name == "host"]
    asking = {file for file, _, name in attributes() if name == "host_address"}
    assert asking | {file for file, holder in hosts if holder in HOLDERS} == set(POINTERS)
    assert {holder for _, holder in hosts} <= HOLDERS | OTHERS, "is this one an address?"
