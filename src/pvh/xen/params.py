"""HVM params (xen/arch/x86/hvm/hvm.c)."""

from __future__ import annotations

from pvh.abi import hvm_param as abi
from pvh.abi.errno import EEXIST, EINVAL, ENODEV, EPERM
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.domain import Domain


class Params:
    """The params of a domain. callback_vector: the vector of a type-2 CALLBACK_IRQ, which stays armed once given."""

    KEPT = ("values", "callback_vector")

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self.values: dict[int, int] = {}
        self.callback_vector: int | None = None

    def get(self, index: int) -> int:
        """Return a param's value for the guest, or a negated errno (a value is never negative)."""
        if index >= abi.COUNT or index in abi.DEPRECATED:
            return -EINVAL
        return self.values.get(index, 0) if index in abi.GUEST_GET else -EPERM

    def set(self, index: int, value: int, *, wide: bool) -> int:
        """Set a param for the guest."""
        refusal = self._refuse(index, value)
        if refusal:
            return refusal
        self.values[index] = value
        if index == abi.CALLBACK_IRQ:
            self._domain.shared.latch_width(wide=wide)
            if value >> abi.CALLBACK_VIA_TYPE_SHIFT == abi.CALLBACK_VIA_VECTOR:
                self.callback_vector = value & 0xFF
                self._domain.assert_callback()
        return 0

    def _refuse(self, index: int, value: int) -> int:
        if index >= abi.COUNT or index in abi.DEPRECATED:
            return -EINVAL
        if index == abi.ALTP2M:
            return -EEXIST
        if index == abi.ACPI_IOPORTS_LOCATION:
            return -ENODEV  # no PM timer on PVH
        if index not in abi.GUEST_SET:
            return -EPERM
        if index == abi.X87_FIP_WIDTH and value not in (0, 4, 8):
            return -EINVAL
        return 0
