"""xen_version: who is answering (xen/common/kernel.c).

The version we give is the Xen release whose public headers the facts were read from as far as guests can tell: 4.20.
"""

from __future__ import annotations

from pvh.abi import xen_version as abi
from pvh.abi.errno import E2BIG, EINVAL, ENODATA, ENOSYS
from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain

MAJOR, MINOR = 4, 20
EXTRAVERSION = ".0-pvh"
CAPABILITIES = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64"  # guest types: 3.0 whatever the release

# What the personality really has, by XENFEAT number: writable_page_tables 0, auto_translated_physmap 2,
# hvm_callback_vector 8, hvm_safe_pvclock 9, not_direct_mapped 16, runstate_phys_area 18, vcpu_time_phys_area 19.
FEATURES = 1 << 0 | 1 << 2 | 1 << 8 | 1 << 9 | 1 << 16 | 1 << 18 | 1 << 19

_TEXTS = {
    abi.EXTRAVERSION: ((16, EXTRAVERSION),),
    abi.COMPILE_INFO: ((64, "none: an interpreter"), (16, "pvh"), (32, "localhost"), (32, "unavailable")),
    abi.CAPABILITIES: ((1024, CAPABILITIES),),
    abi.CHANGESET: ((64, "unavailable"),),
    abi.COMMANDLINE: ((1024, ""),),
}


def _padded(text: str, size: int) -> bytes:
    return text.encode("ascii")[: size - 1].ljust(size, b"\0")


def xen_version(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer xen_version(cmd, arg)."""
    command, address = args[0] & 0xFFFFFFFF, args[1]
    if command == abi.VERSION:
        return MAJOR << 16 | MINOR
    if command == abi.PAGESIZE:
        return -EINVAL if address else PAGE_SIZE
    if command == abi.GET_FEATURES:
        return _features(caller, address)
    if command == abi.BUILD_ID:
        return -ENODATA
    answer = _answer(domain, command, wide=caller.wide)
    if answer is None:
        return -ENOSYS
    caller.memory.write(address, answer)
    return 0


def _answer(domain: Domain, command: int, *, wide: bool) -> bytes | None:
    """Return what a command that only copies out copies out."""
    if command == abi.PLATFORM_PARAMETERS:
        return bytes(8 if wide else 4)  # virt_start: an HVM guest has no hypervisor mapped
    if command == abi.GUEST_HANDLE:
        return domain.uuid
    fields = _TEXTS.get(command)
    return b"".join(_padded(text, size) for size, text in fields) if fields else None


def _features(caller: Caller, address: int) -> int:
    index, _ = caller.load(abi.FEATURE_INFO, address)
    if index:
        return -EINVAL
    caller.store(abi.FEATURE_INFO, address, 0, FEATURES)
    return 0


def console_io(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer console_io(cmd, count, buffer): a write goes to the console.

    Real Xen refuses it (-EPERM) to an unprivileged domain outside debug builds; we accept it, as a debug build does, so
    that a kernel can be heard before it has a console (a stated deviation: docs/design.md).
    """
    command, count, address = args[0] & 0xFFFFFFFF, args[1] & 0xFFFFFFFF, args[2]
    if command == abi.CONSOLEIO_READ:
        return -E2BIG if count > 0x7FFFFFFF else 0
    if command != abi.CONSOLEIO_WRITE:
        return -ENOSYS
    while count > 0 and domain.running:
        part = min(count, PAGE_SIZE)
        domain.console(caller.memory.read(address, part))
        address, count = address + part, count - part
    return 0
