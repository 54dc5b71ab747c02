"""Who may do what to a node (docs/misc/xenstore.txt; tools/xenstored/core.c, perm_for_conn).

The first permission names the owner, who may do everything, and says what a domain may that is named nowhere. The
others each name a domain and what it may. Domain 0, the toolstack, may do everything.
"""

from __future__ import annotations

from pvh.record import dataclass

NONE, READ, WRITE, OWNER = 0, 1, 2, 4

_LETTERS = {"n": NONE, "r": READ, "w": WRITE, "b": READ | WRITE}
_LETTER = {access: letter for letter, access in _LETTERS.items()}
_DOMIDS = 1 << 16


@dataclass(frozen=True, slots=True)
class Permission:
    """READ, WRITE, both or NONE for a domain."""

    domid: int
    access: int = NONE

    def __str__(self) -> str:
        return f"{_LETTER[self.access]}{self.domid}"


Permissions = tuple[Permission, ...]


def parse(words: list[bytes]) -> Permissions | None:
    """Read permissions as the wire has them (n1, r2 ...); None when one is none."""
    found: list[Permission] = []
    for word in words:
        letter, number = word[:1].decode("latin-1"), word[1:]
        if letter not in _LETTERS or not number.isdigit() or len(number) > 5 or int(number) >= _DOMIDS:
            return None
        found.append(Permission(int(number), _LETTERS[letter]))
    return tuple(found)


def allowed(permissions: Permissions, domid: int) -> int:
    """Return what a domain may."""
    default = permissions[0]
    if domid in (0, default.domid):
        return READ | WRITE | OWNER
    return next((one.access for one in permissions[1:] if one.domid == domid), default.access)
