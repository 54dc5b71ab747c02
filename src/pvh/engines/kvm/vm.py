"""A guest over /dev/kvm: memory slots, a local APIC and no other interrupt controller, and the MSRs we want to see."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress

from pvh.build.image import Image
from pvh.build.ram import Block, GuestRam
from pvh.engines.engine import CpuidTable
from pvh.engines.kvm import cpuid, hypercall_page, patch
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm.clock import GuestClock
from pvh.engines.kvm.interrupts import Interrupts
from pvh.engines.kvm.vcpu import KvmVcpu, Surroundings
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import keep, put_back

if TYPE_CHECKING:
    from pvh.engines.kvm.kept_state import Keeper

# Where Intel processors without "unrestricted guest" keep KVM's own TSS (3 pages) and identity map (1 page): below the
# reset vector, above every address that PVH uses (special pages end at 0xff000000).
_IDENTITY_MAP = 0xFFFBC000
_TSS = 0xFFFBD000

# The hypercall page's register is 0x40000000, or 0x40000200 beside Viridian. KVM has Hyper-V's registers there.
_XEN_MSRS = (0x40000000, 0x400)
_AMD_VENDORS = (0x68747541, 0x6F677948)  # EBX of CPUID leaf 0: "Auth"enticAMD, "Hygo"nGenuine


def make_vm(dev: int, ram: GuestRam) -> int:
    """Make a virtual machine without vCPUs and return its descriptor. Raises EngineError."""
    fd = kvm.must("a virtual machine", dev, kvm.CREATE_VM)
    try:
        kvm.must("its identity map", fd, kvm.SET_IDENTITY_MAP_ADDR, kvm.U64.pack(_IDENTITY_MAP))
        kvm.set_tss_address(fd, _TSS)
        kvm.enable_cap(fd, kvm.CAP_SPLIT_IRQCHIP, 0)  # argument: IOAPIC routes to reserve
        kvm.enable_cap(fd, kvm.CAP_X86_USER_SPACE_MSR, kvm.MSR_EXIT_REASON_UNKNOWN | kvm.MSR_EXIT_REASON_FILTER)
        _show_xen_msrs(fd)
        for slot, block in enumerate(ram.blocks):
            region = kvm.USER_MEMORY_REGION.pack(slot, 0, block.gpa, block.size, block.host)
            kvm.must(f"memory at {block.gpa:#x}", fd, kvm.SET_USER_MEMORY_REGION, region)
    except BaseException:
        os.close(fd)
        raise
    return fd


def run_size(dev: int) -> int:
    """Return the bytes to map of a vCPU: struct kvm_run and what it points into."""
    return kvm.must("the size of kvm_run", dev, kvm.GET_VCPU_MMAP_SIZE)


def tsc_khz(dev: int) -> int:
    """Return the frequency of guests' TSC in kHz. Raises EngineError."""
    vm = kvm.must("a virtual machine", dev, kvm.CREATE_VM)
    try:
        with suppress(OSError):
            return kvm.call(vm, kvm.GET_TSC_KHZ)
        # Before Linux 5.18 only a vCPU knows it, which costs three times as much.
        vcpu = kvm.must("a vCPU", vm, kvm.CREATE_VCPU, 0)
        try:
            return kvm.must("the TSC frequency", vcpu, kvm.GET_TSC_KHZ)
        finally:
            os.close(vcpu)
    finally:
        os.close(vm)


def _show_xen_msrs(fd: int) -> None:
    """Deny the kernel Xen's MSRs (a bitmap of zeroes), so that access to them exits."""
    base, count = _XEN_MSRS
    bitmap = ctypes.create_string_buffer(count // 8)
    request = kvm.MSR_FILTER.pack(0, kvm.MSR_FILTER_READ_WRITE, count, base, ctypes.addressof(bitmap))
    kvm.must("a filter of MSRs", fd, kvm.X86_SET_MSR_FILTER, request)


class KvmVm:
    """A guest on KVM. The first vCPU has the image's entry state, the others wait for INIT and SIPI."""

    def __init__(self, dev: int, image: Image, tables: tuple[CpuidTable, ...], weaknesses: Callable[[], str]) -> None:
        """Make it; dev stays the caller's. Raises EngineError, and then nothing is left behind.

        weaknesses  is asked what to say of this KVM when it breaks the guest
        """
        self._ram = image.ram
        self._vcpus: list[KvmVcpu] = []
        self._unpatched: tuple[int, ...] = ()
        self._sites = hypercall_page.Sites()
        self._trap = hypercall_page.OUT
        self._dev = dev
        self._keeper: Keeper | None = None
        self._fd = make_vm(dev, image.ram)
        self._slots = len(image.ram.blocks)
        self._interrupts = Interrupts(self._fd)
        try:
            if image.plan.options.platform == "xen":
                self._see_hypercalls(dev, image, tables[0])
            around = Surroundings(
                self._fd, run_size(dev), self._interrupts, image.ram, self._sites, image.files, weaknesses
            )
            for index, table in enumerate(tables):
                self._vcpus.append(KvmVcpu(index, around))
                self._vcpus[index].set_cpuid(cpuid.pack(table))
            self._vcpus[0].load(image.entry)
            self._clock = GuestClock(self._vcpus[0])
        except BaseException:
            self.close()
            raise

    @property
    def patched(self) -> tuple[int, ...]:
        """Guest-physical addresses where VMCALL or VMMCALL was replaced."""
        return tuple(sorted(self._sites.patched))

    @property
    def unpatched(self) -> tuple[int, ...]:
        """Guest-physical addresses of VMCALL and VMMCALL that KVM answers unseen, because patching is forbidden."""
        return self._unpatched

    @property
    def vcpus(self) -> tuple[KvmVcpu, ...]:
        """The processors."""
        return tuple(self._vcpus)

    def tsc(self) -> int:
        """Return what RDTSC on vCPU 0 would give now; from any thread."""
        return self._clock.now()

    def hypercall_stub(self, number: int) -> bytes:
        """Return the 32 bytes of the hypercall page that make hypercall `number` an exit of this engine."""
        return hypercall_page.stub(number, self._trap)

    def map(self, block: Block) -> bool:
        """Show the guest another block of RAM; False when KVM has no slot left for it."""
        region = kvm.USER_MEMORY_REGION.pack(self._slots, 0, block.gpa, block.size, block.host)
        try:
            kvm.call(self._fd, kvm.SET_USER_MEMORY_REGION, region)
        except OSError:
            return False
        self._slots += 1
        return True

    def written(self, gpa: int, size: int) -> None:
        """Take notice that the host wrote guest memory: a page with this engine's stubs is a hypercall page now."""
        if self._trap == hypercall_page.OUT:
            self._sites.note(self._ram, gpa, size)

    def break_at(self, addresses: frozenset[int]) -> bool:
        """Have vCPUs stop, with a Break exit, where they are to execute these linear addresses; False: too many."""
        from pvh.engines.kvm.debug import MOST  # only where somebody debugs

        if len(addresses) > MOST:
            return False
        for vcpu in self._vcpus:
            vcpu.debugged().break_at(tuple(addresses))
        return True

    def capture(self) -> dict[str, Any]:
        """Return what is kept of the processors. Raises EngineError where KVM cannot give it."""
        keeper = self._keep()
        with self._interrupts.still():
            return {
                "vcpus": [vcpu.capture(keeper) for vcpu in self._vcpus],
                "at": self._vcpus[0].tsc(),
                "offsets": [vcpu.tsc_offset for vcpu in self._vcpus],
                "held": self._interrupts.held,
                "sites": keep(self._sites),
                "unpatched": self._unpatched,
            }

    def apply(self, state: dict[str, Any]) -> None:
        """Go on from what capture() returned. Raises EngineError where KVM refuses it."""
        keeper = self._keep()
        with self._interrupts.still():
            self._go_on_at(state["at"], state["offsets"])
            for vcpu, of_it in zip(self._vcpus, state["vcpus"], strict=True):
                vcpu.apply(keeper, of_it)
            self._interrupts.held = state["held"]
        put_back(self._sites, state["sites"])
        self._unpatched = state["unpatched"]

    def _keep(self) -> Keeper:
        if self._keeper is None:
            from pvh.engines.kvm.kept_state import Keeper  # only where there are snapshots

            self._keeper = Keeper(self._dev, self._fd)
        return self._keeper

    def _go_on_at(self, tsc: int, offsets: list[int]) -> None:
        """Have the first vCPU's TSC be what it was, and the others' as far from it as they were."""
        first = self._vcpus[0]
        gap = first.tsc_offset + tsc - first.tsc() - offsets[0]
        for vcpu, offset in zip(self._vcpus, offsets, strict=True):
            vcpu.tsc_offset = offset + gap
        self._clock = GuestClock(first)

    def close(self) -> None:
        """Give everything back. No vCPU may be running."""
        self._interrupts.close()
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _see_hypercalls(self, dev: int, image: Image, table: CpuidTable) -> None:
        """Have VMCALL and VMMCALL exit: by KVM's own interception, else by replacing them in the guest's code."""
        if hypercall_page.intercepted(dev):
            config = kvm.XEN_CONFIG.pack(kvm.XEN_HVM_CONFIG_INTERCEPT_HCALL, 0)
            kvm.must("interception of hypercalls", self._fd, kvm.XEN_HVM_CONFIG, config)
            amd = any(e.leaf == 0 and e.ebx in _AMD_VENDORS for e in table)
            self._trap = hypercall_page.VMMCALL if amd else hypercall_page.VMCALL
            return
        sites = patch.find_sites(image)
        if image.plan.options.patch:
            patch.patch(image, sites)
            self._sites.patched = frozenset(sites)
        else:
            self._unpatched = sites
