"""sched_op (xen/common/sched/core.c)."""

from __future__ import annotations

from pvh.abi import sched as abi
from pvh.abi.errno import ENOSYS
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain


def sched_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer sched_op(cmd, arg)."""
    command, address = args[0] & 0xFFFFFFFF, args[1]
    if command == abi.YIELD:
        return 0
    if command == abi.SHUTDOWN:
        (reason,) = caller.load("<I", address)
        domain.shut_down(reason & 0xFF)  # Xen takes any: what an unknown one means is the toolstack's business
        return 0
    return -ENOSYS
