"""Linux's own version text, found in a kernel that no header or note describes."""

from __future__ import annotations

from pvh.abi import elfnote
from pvh.kernel.record import Kernel
from pvh.kernel.source import Source
from pvh.record import replace

_START = b"Linux version "  # init/version-timestamp.c, linux_banner
_CHUNK = 1 << 20
_LONGEST = 512


def with_banner(kernel: Kernel) -> Kernel:
    """Return the kernel with linux_version filled from its banner, where it says it is Linux and nothing gave one.

    This reads the whole image, so it is for people who ask, not for the way to a guest.
    """
    guest_os = kernel.note(elfnote.GUEST_OS)
    if kernel.linux_version or guest_os is None or guest_os.value != "linux":
        return kernel
    return replace(kernel, linux_version=find_version(kernel.source))


def find_version(source: Source) -> str:
    """Return the release in the first banner that starts with a digit, such as 6.1.0-56-amd64, or ""."""
    for offset in range(0, source.size, _CHUNK):
        chunk = source.read(offset, _CHUNK + _LONGEST)
        at = chunk.find(_START)
        while 0 <= at < _CHUNK:
            # The same words also start messages that are no banner, such as "Linux version %s".
            release = chunk[at + len(_START) : at + _LONGEST].split(b" ")[0]
            if release[:1].isdigit() and release.isascii():
                return release.decode("ascii")
            at = chunk.find(_START, at + 1)
    return ""
