"""Paths: what is a valid one, and which node a relative one names (tools/xenstored/core.c, canonicalize)."""

from __future__ import annotations

from pvh.abi.errno import EINVAL
from pvh.abi.xenstore_wire import REL_PATH_MAX
from pvh.xenstore.refusal import Refusal

_VALID = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@"

# Nodes outside the tree, which exist to be watched.
SPECIAL = ("@introduceDomain", "@releaseDomain")


def domain_path(domid: int) -> str:
    """Return where a domain's own part of the tree begins."""
    return f"/local/domain/{domid}"


def resolve(path: bytes, base: str, *, special: bool = False) -> str:
    """Return the absolute path that a client at base means. special: it may be @something.

    Raises Refusal (EINVAL).
    """
    if path.translate(None, _VALID) or (path[:1] == b"@" and not special):
        raise Refusal(EINVAL)
    text = path.decode("ascii")
    full = text if text[:1] in ("/", "@") else f"{base}/{text}"
    # No path so long as ABS_PATH_MAX passes this: at most a domain's own path is in front.
    if (full != "/" and full.endswith("/")) or "//" in full or len(_below_a_domain(full)) > REL_PATH_MAX:
        raise Refusal(EINVAL)
    return full


def _below_a_domain(path: str) -> str:
    """Return what xs_wire.h limits as a relative path: the part below any domain's own path, or else the whole."""
    words = path.split("/", 4)
    in_domain = len(words) == 5 and words[1:3] == ["local", "domain"] and words[3].isdigit() and len(words[3]) <= 5
    return words[4] if in_domain else path


def parent(path: str) -> str:
    """Return the path one level up; that of / and of special nodes is /."""
    return path[: path.rfind("/", 1)] if "/" in path[1:] else "/"


def child(path: str, name: str) -> str:
    """Return the path of a child."""
    return f"/{name}" if path == "/" else f"{path}/{name}"


def is_below(path: str, top: str) -> bool:
    """Return whether path is top or below it."""
    return top in ("/", path) or path.startswith(f"{top}/")
