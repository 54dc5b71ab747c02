"""narrow: of many things that together make something fail, the few that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")


def narrow(
    items: tuple[Item, ...], fails: Callable[[tuple[Item, ...]], bool], with_: tuple[Item, ...] = ()
) -> tuple[Item, ...]:
    """Return items that fail together, with `with_` beside them, and none of which can be left out; items do fail.

    By halves: one item of n is found in log2(n) trials. Several that matter only together cost some more.
    """
    if len(items) <= 1:
        return items
    half = len(items) // 2
    left, right = items[:half], items[half:]
    for part in (left, right):
        if fails((*with_, *part)):
            return narrow(part, fails, with_)
    of_left = narrow(left, fails, (*with_, *right))
    return (*of_left, *narrow(right, fails, (*with_, *of_left)))
