"""The rule for an instruction."""

from __future__ import annotations

from pvh.conformance.monitor import alu, flow, fpu, system
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.conformance.monitor.alu import Rule
    from pvh.conformance.monitor.decode import Op

_BY_NAME: dict[str, Rule] = {**alu.RULES, **flow.RULES, **system.RULES, **fpu.RULES}
_VECTOR = ("sse", "avx", "mmx")


def rule(op: Op) -> Rule:
    """Return what moves definedness as the instruction moves values."""
    if "fpu" in op.groups:
        return fpu.RULES.get(op.name, fpu.x87)
    if any(group.startswith(_VECTOR) for group in op.groups):
        return fpu.RULES.get(op.name, fpu.vector)
    return _BY_NAME.get(op.name, alu.general)
