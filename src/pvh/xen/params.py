"""HVM params and hvm_op (xen/arch/x86/hvm/hvm.c)."""

from __future__ import annotations

from pvh.abi import hvm_param as abi
from pvh.abi.errno import EEXIST, EINVAL, ENODEV, ENOENT, ENOSYS, EPERM, ESRCH
from pvh.abi.hypercall import DOMID_SELF
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.xen.caller import Caller
    from pvh.xen.domain import Domain


class Params:
    """The params of a domain. callback_vector: the vector of a type-2 CALLBACK_IRQ, which stays armed once given."""

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


def hvm_op(domain: Domain, caller: Caller, args: tuple[int, ...]) -> int:
    """Answer hvm_op(cmd, arg)."""
    command, address = args[0] & 0xFFFFFFFF, args[1]
    if command in (abi.GET_PARAM, abi.SET_PARAM):
        return _param(domain, caller, command, address)
    if command == abi.GET_TIME:
        caller.store("<Q", address, domain.clock.now())
        return 0
    if command == abi.FLUSH_TLBS:
        return -EINVAL if address else 0
    if command == abi.PAGETABLE_DYING:
        return -EINVAL  # as Xen with hardware-assisted paging
    if command == abi.SET_EVTCHN_UPCALL_VECTOR:
        return _upcall_vector(domain, caller, address)
    return -ENOSYS


def _param(domain: Domain, caller: Caller, command: int, address: int) -> int:
    domid, pad, index, value = caller.load(abi.PARAM, address)
    if index >= abi.COUNT:
        return -EINVAL
    if domid not in (DOMID_SELF, domain.domid):
        return -ESRCH
    if command == abi.SET_PARAM:
        return domain.params.set(index, value, wide=caller.wide)
    got = domain.params.get(index)
    if got < 0:
        return got
    caller.store(abi.PARAM, address, domid, pad, index, got)
    return 0


def _upcall_vector(domain: Domain, caller: Caller, address: int) -> int:
    vcpu, vector = caller.load(abi.UPCALL_VECTOR, address)
    if vector < 0x10:
        return -EINVAL
    if vcpu >= domain.vcpus:
        return -ENOENT
    domain.upcall_vectors[vcpu] = vector
    domain.host.raise_vector(vcpu, vector)
    return 0
