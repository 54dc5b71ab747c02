"""The shared_info page and the vcpu_info of each vCPU (xen/include/public/xen.h, xen/common/domain.c)."""

from __future__ import annotations

import struct

from pvh.abi import shared_info as abi
from pvh.abi.errno import EBUSY, EINVAL, ENXIO
from pvh.abi.x86 import PAGE_SIZE
from pvh.hints import TYPE_CHECKING
from pvh.xen import atomics
from pvh.xen.physmap import XenPage

if TYPE_CHECKING:
    from pvh.xen.clock import Clock
    from pvh.xen.physmap import Physmap

_NS = 1_000_000_000


class SharedInfo:
    """The page, and where each vcpu_info is."""

    KEPT = ("page", "layout", "_registered", "_slots")

    def __init__(self, physmap: Physmap, clock: Clock, vcpus: int) -> None:
        self._physmap = physmap
        self._ram = physmap.ram
        self._clock = clock
        self.page = XenPage()
        self.layout = abi.LAYOUT_64
        self._registered: dict[int, int] = {}
        self._vcpus = vcpus
        self._slots, self._slots_address = atomics.memory(vcpus * abi.VCPU_INFO_SIZE)  # where the page has no room
        self.refresh()

    def map_at(self, gfn: int) -> bool:
        """Put the page at a guest frame, moving it there; False when that frame is not memory."""
        mapped = self._physmap.map(self.page, gfn)
        self.refresh()
        return mapped

    def latch_width(self, *, wide: bool) -> None:
        """Take the layout of the caller's width, as Xen does on the hypercall-page MSR and on CALLBACK_IRQ."""
        self.layout = abi.LAYOUT_64 if wide else abi.LAYOUT_32
        self.refresh()

    def register_vcpu_info(self, vcpu: int, gfn: int, offset: int) -> int:
        """Move a vCPU's info to a place of the guest's choosing; errors as VCPUOP_register_vcpu_info gives them."""
        if offset >= PAGE_SIZE or gfn >> 40:
            return -EINVAL
        if vcpu in self._registered:
            return -EBUSY
        if offset > PAGE_SIZE - abi.VCPU_INFO_SIZE or offset % self.layout.word:
            return -ENXIO
        gpa = gfn * PAGE_SIZE + offset
        if self._ram.view(gpa, abi.VCPU_INFO_SIZE) is None:
            return -EINVAL
        self._ram.write(gpa, bytes(self._view(vcpu)))
        self._registered[vcpu] = gpa
        self._write_time(vcpu)
        # Whatever was pending in the old place is delivered anew: a spurious upcall, every selector set.
        self._view(vcpu)[self.layout.pending_sel : self.layout.pending_sel + self.layout.word] = (
            b"\xff" * self.layout.word
        )
        atomics.exchange_byte(self.vcpu_info(vcpu) + abi.UPCALL_PENDING, 1)
        return 0

    def vcpu_info(self, vcpu: int) -> int:
        """Return the host address of a vCPU's info, for atomic operations."""
        gpa = self._registered.get(vcpu)
        if gpa is not None:
            host = self._ram.host_address(gpa, abi.VCPU_INFO_SIZE)
            assert host is not None
            return host
        base = self._page if vcpu < abi.VCPU_INFO_SLOTS else self._slots_address
        return base + vcpu * abi.VCPU_INFO_SIZE

    def _view(self, vcpu: int) -> memoryview:
        """Return a vCPU's info, for all else."""
        gpa = self._registered.get(vcpu)
        if gpa is not None:
            view = self._ram.view(gpa, abi.VCPU_INFO_SIZE)
            assert view is not None
            return view
        base = self._physmap.view(self.page) if vcpu < abi.VCPU_INFO_SLOTS else self._slots
        return base[vcpu * abi.VCPU_INFO_SIZE : (vcpu + 1) * abi.VCPU_INFO_SIZE]

    @property
    def pending(self) -> int:
        """Host address of evtchn_pending."""
        return self._page + self.layout.evtchn_pending

    @property
    def mask(self) -> int:
        """Host address of evtchn_mask."""
        return self._page + self.layout.evtchn_mask

    @property
    def _page(self) -> int:
        return self._physmap.host(self.page)

    def refresh(self) -> None:
        """Write the times anew, wherever the page and the vcpu_infos are now."""
        for vcpu in range(self._vcpus):
            self._write_time(vcpu)
        self._write_wallclock()

    def time_info(self) -> bytes:
        """Return vcpu_time_info: the TSC's scale. It never changes, so the version is even and constant."""
        clock = self._clock
        return struct.pack(abi.TIME_INFO, 2, 0, clock.origin, 0, clock.mul, clock.shift, abi.TIME_TSC_STABLE, 0)

    def _write_time(self, vcpu: int) -> None:
        data = self.time_info()
        self._view(vcpu)[abi.VCPU_TIME_INFO : abi.VCPU_TIME_INFO + len(data)] = data

    def _write_wallclock(self) -> None:
        seconds, nanoseconds = divmod(self._clock.wallclock_ns, _NS)
        data = struct.pack("<III", 2, seconds & 0xFFFFFFFF, nanoseconds)
        page = self._physmap.view(self.page)
        page[self.layout.wc_version : self.layout.wc_version + len(data)] = data
        page[self.layout.wc_sec_hi : self.layout.wc_sec_hi + 4] = struct.pack("<I", seconds >> 32)
