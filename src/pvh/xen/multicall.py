"""multicall: a list of hypercalls in one (xen/common/multicall.c, xen/common/compat/multicall.c)."""

from __future__ import annotations

from collections.abc import Callable

from pvh.abi import hypercall as abi
from pvh.abi.errno import EINVAL
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain

Invoke = Callable[["Domain", "Caller", int, tuple[int, ...]], int]


def multicall(domain: Domain, caller: Caller, args: tuple[int, ...], invoke: Invoke) -> int:
    """Answer multicall(list, count): do the calls in order and put each one's result beside it; 0 whatever these are.

    A multicall in a multicall gives -EINVAL. invoke carries one call out.
    """
    if caller.in_multicall:
        return -EINVAL
    address, count = args[0], args[1] & 0xFFFFFFFF
    layout, word = (abi.MULTICALL_64, 8) if caller.wide else (abi.MULTICALL_32, 4)
    caller.in_multicall = True
    for _ in range(count):
        if not domain.running:
            break
        number, _result, *arguments = caller.load(layout, address)
        result = invoke(domain, caller, number, tuple(arguments[:5]))
        caller.memory.write(address + word, (result & (1 << 8 * word) - 1).to_bytes(word, "little"))
        address += 8 * word
    return 0
