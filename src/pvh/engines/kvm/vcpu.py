"""One vCPU over /dev/kvm: the run loop, and each kind of exit turned into the seam's records and back."""

from __future__ import annotations

import errno
import mmap
import os
from _thread import get_ident, get_native_id
from collections.abc import Callable
from fcntl import ioctl
from functools import partial
from threading import Lock, Timer

from pvh.abi.x86 import MSR_TSC
from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam
from pvh.engines.exits import (
    Break,
    Broken,
    Halt,
    Hypercall,
    MmioRead,
    MmioWrite,
    MsrRead,
    MsrWrite,
    PortIn,
    PortOut,
    Shutdown,
    Sink,
)
from pvh.engines.kvm import ioctl as kvm
from pvh.engines.kvm import kick
from pvh.engines.kvm import state as registers
from pvh.engines.kvm.hypercall_page import OUT, PORT, Sites
from pvh.engines.kvm.interrupts import Interrupts
from pvh.engines.kvm.parking import Parking
from pvh.errors import EngineError
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import keep, put_back
from pvh.kernel.source import FileSource
from pvh.record import dataclass

if TYPE_CHECKING:
    from pvh.engines.engine import Awaits
    from pvh.engines.kvm.debug import GuestDebug
    from pvh.engines.kvm.kept_state import Keeper

_MASK64 = (1 << 64) - 1
_STEP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a guest's vCPUs share: the VM's descriptor, kvm_run's size, interrupts, memory, hypercall sites, files.

    weaknesses  what there is to say of this KVM when it breaks the guest
    """

    vm: int
    run_size: int
    interrupts: Interrupts
    ram: GuestRam
    sites: Sites
    files: tuple[FileSource, ...]
    weaknesses: Callable[[], str] = str


class KvmVcpu:
    """A vCPU. Its APIC id is twice its index, as Xen numbers them (CPUID leaf 1 EBX[31:24], leaf 0xb EDX, MADT)."""

    def __init__(self, index: int, around: Surroundings) -> None:
        """Create it in its reset state: the first runnable, others waiting for INIT/SIPI."""
        self._index = index
        self._around = around
        self._fd = kvm.must(f"vCPU {index}", around.vm, kvm.CREATE_VCPU, 2 * index)
        self._run = mmap.mmap(self._fd, around.run_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        kvm.enable_cap(self._fd, kvm.CAP_ENFORCE_PV_FEATURE_CPUID, 1)  # no KVM clock where no leaf announces one
        self._run[kvm.RUN_VALID_REGS] = kvm.SYNC_REGS | kvm.SYNC_SREGS
        if index:  # the first gets its whole state from load()
            registers.enable_caches(self._fd)
        self._fresh = True
        self._ended = self._kicked = False
        self._behind = (0, len(OUT))
        self._thread = 0  # kernel id of the thread inside run(), 0: none
        self._entered = False  # that thread is inside KVM_RUN, or will be before it waits for anything
        self._gate = Lock()  # held, it keeps that thread from entering
        self._parking = Parking(self._fd, waits=index > 0)
        self._callback: tuple[int, Callable[[], bool]] | None = None
        self._debug: GuestDebug | None = None
        self._single = False
        self._let_in = 0  # the Python thread whose signal mask was seen to
        self._exits: dict[int, Callable[[Sink], bool]] = {
            kvm.EXIT_IO: self._io,
            kvm.EXIT_MMIO: self._mmio,
            kvm.EXIT_X86_RDMSR: self._rdmsr,
            kvm.EXIT_X86_WRMSR: self._wrmsr,
            kvm.EXIT_XEN: self._xen,
            kvm.EXIT_HLT: self._halt,
            kvm.EXIT_DEBUG: self._stopped,
            kvm.EXIT_IRQ_WINDOW_OPEN: self._call_back,
            kvm.EXIT_SHUTDOWN: self._shutdown,
            kvm.EXIT_INTERNAL_ERROR: self._internal_error,
            kvm.EXIT_FAIL_ENTRY: self._fail_entry,
        }

    @property
    def index(self) -> int:
        """The vCPU id, from 0."""
        return self._index

    @property
    def tsc_khz(self) -> int:
        """Frequency of the guest's TSC in kHz (KVM_GET_TSC_KHZ)."""
        return kvm.must("the TSC frequency", self._fd, kvm.GET_TSC_KHZ)

    def tsc(self) -> int:
        """Return the vCPU's time stamp counter, while it is not inside KVM_RUN."""
        return registers.read_msr(self._fd, MSR_TSC)

    def set_cpuid(self, table: bytearray) -> None:
        """Set what CPUID answers: struct kvm_cpuid2, before the first run."""
        kvm.must("the CPUID table", self._fd, kvm.SET_CPUID2, table)

    @property
    def executed(self) -> None:
        """Nothing: blocks are not counted here."""
        return

    def load(self, state: CpuState) -> None:
        """Set every register; what the record does not hold gets its reset value. A waiting vCPU becomes runnable.

        But not where an INIT came last: it overtook whoever wanted the vCPU loaded.
        """
        if self._parking.learn() == "sipi":
            return
        registers.write(self._fd, state, fresh=self._fresh)
        self._run[kvm.RUN_DIRTY_REGS] = 0
        self._ended = False
        self._callback = None
        self._parking.forget()

    def step(self, sink: Sink) -> None:
        """Execute one instruction; a HLT that nothing ends is left after half a second. Raises EngineError."""
        debug = self.debugged()
        debug.step(single=True)
        self._single, self._kicked = True, False  # it was a kick that stopped it
        self._run[kvm.RUN_IMMEDIATE_EXIT] = 0
        limit = Timer(_STEP_SECONDS, self.kick)
        limit.start()
        try:
            self.run(sink)
        finally:
            limit.cancel()
            self._single = self._kicked = False
            self._run[kvm.RUN_IMMEDIATE_EXIT] = 0
            debug.step(single=False)

    def debugged(self) -> GuestDebug:
        """Return what the vCPU is watched for."""
        if self._debug is None:
            from pvh.engines.kvm.debug import GuestDebug  # only where somebody debugs

            self._debug = GuestDebug(self._fd)
        return self._debug

    def assign(self, gprs: tuple[int, ...], rip: int, rflags: int) -> None:
        """Change the general registers, RIP and RFLAGS, and nothing else. Between runs."""
        kvm.must("the general registers", self._fd, kvm.SET_REGS, registers.pack_general(gprs, rip, rflags))
        self._run[kvm.RUN_DIRTY_REGS] = 0

    def park(self) -> None:
        """Have run() execute nothing until resume(), load(), or an INIT and a SIPI."""
        self._parking.park()

    def resume(self) -> None:
        """Have run() go on where park() stopped it."""
        self._parking.resume()

    def doze(self) -> None:
        """Wait inside KVM_RUN for an interrupt or rouse()."""
        self._parking.doze()

    def rouse(self) -> None:
        """Go on behind the hypercall, if no interrupt had it do so."""
        self._parking.rouse()

    def awaits(self) -> Awaits:
        """Return what has the vCPU execute nothing; from any thread, callers taking turns."""
        if self._let_in == get_ident():
            return self._parking.stands  # its own thread asks, from outside KVM_RUN
        self._parking.ask()  # before the look at _entered: the vCPU's thread does both the other way round
        with self._gate:  # KVM answers about a vCPU that is inside KVM_RUN only once it leaves
            if not self._entered:
                return self._parking.peek()
            thread = self._thread  # not before: it may have been between two runs then
        self._run[kvm.RUN_IMMEDIATE_EXIT] = 1
        kick.knock(thread)
        self._parking.wait()
        return self._parking.stands

    def sleeps(self) -> bool:
        """Tell whether it executes nothing before an interrupt or INIT. No vCPU runs."""
        return self._parking.sleeps()

    def ignore_sipi(self) -> None:
        """Have a waiting vCPU await an INIT, if it has had one; from any thread, callers taking turns."""
        self._parking.ignore_sipi()
        self._run[kvm.RUN_IMMEDIATE_EXIT] = 1  # if its thread is outside KVM_RUN, it learns of this at the entry
        self.awaits()

    def nmi(self) -> None:
        """Make an NMI pending; one that finds the vCPU down waits until it runs."""
        self._parking.nmi()

    def state(self) -> CpuState:
        """Return the registers. During an exit RIP is on the instruction, or behind it where KVM emulated it."""
        return registers.read(self._fd)

    def run(self, sink: Sink, blocks: int | None = None) -> None:  # noqa: ARG002 - vCPUs take no turns here
        """Execute until kicked, shut down or broken. An AP that waits for INIT/SIPI waits in here."""
        if self._let_in != get_ident():
            kick.let_in()
            self._let_in = get_ident()
        self._fresh = False
        if self._callback:
            self._call_back()
        self._thread = get_native_id()
        try:
            while not self._ended and self._enter():
                reason = kvm.U32.unpack_from(self._run, kvm.RUN_EXIT_REASON)[0]
                handler = self._exits.get(reason)
                if handler is None:
                    handler = partial(self._break, detail=f"KVM left the guest for a reason unknown here ({reason})")
                try:
                    self._ended = not handler(sink)
                except BaseException:
                    from pvh.engines.kvm.kept_state import finish  # the run has failed

                    finish(self._fd, self._run)
                    raise
        finally:
            self._thread = 0

    def _enter(self) -> bool:
        """Enter the guest until an exit; False when it was a kick that ended it."""
        with self._gate:
            self._entered = True
        while True:
            try:
                ioctl(self._fd, kvm.RUN)  # an argument, even 0, would be tried as two kinds of buffer first
            except (InterruptedError, BlockingIOError):  # a kick; EAGAIN: an AP got an INIT or a SIPI
                self._run[kvm.RUN_IMMEDIATE_EXIT] = 0
                if self._kicked:
                    break
                self._parking.learn()
                self._parking.hand_nmi_over()
            except OSError as error:
                self._entered = False
                self._host_failed(error)
            else:
                self._entered = False
                self._parking.ran()
                return True
        self._entered = self._kicked = False
        self._parking.learn()
        self._parking.hand_nmi_over()
        return False

    def _host_failed(self, error: OSError) -> None:
        if error.errno == errno.EFAULT:
            raise self._memory_vanished() from None
        raise EngineError(f"KVM cannot run vCPU {self._index}: {os.strerror(error.errno or 0).lower()}") from None

    def _memory_vanished(self) -> EngineError:
        changed = [source.path for source in self._around.files if source.changed()]
        return EngineError(
            "guest memory vanished while the guest ran: a file that is mapped into it was cut short",
            path=changed[0] if changed else None,
            hint="do not change the files of a running guest, or use --copy",
        )

    def kick(self) -> None:
        """Make run() return between two instructions, I/O in progress completed; from any thread."""
        self._kicked = True
        self._run[kvm.RUN_IMMEDIATE_EXIT] = 1
        thread = self._thread
        if thread and thread != get_native_id():
            kick.knock(thread)

    def raise_vector(self, vector: int) -> None:
        """Send the vCPU's local APIC an edge-triggered interrupt; from any thread. It waits until the APIC takes it."""
        self._around.interrupts.send(2 * self._index, vector)

    def inject(self, vector: int, wanted: Callable[[], bool]) -> None:
        """Interrupt the vCPU past its local APIC when it takes interrupts, as long as wanted(); from any thread."""
        self._callback = vector, wanted
        self._around.interrupts.hold((2 * self._index, None), self._was_called_back)
        self.kick()

    def _was_called_back(self) -> bool:
        """Tell whether no callback is wanted any more; else have the vCPU's thread look again."""
        callback = self._callback
        done = callback is None or not callback[1]()
        if not done:
            self.kick()
        return done

    def _call_back(self, _: Sink | None = None) -> bool:
        """Deliver the callback if one is wanted and the vCPU takes interrupts; from its own thread, no exit half done.

        As an interrupt that is being delivered, for KVM_INTERRUPT is heeded only where LINT0 is ExtINT (kvm/lapic.c,
        kvm_apic_accept_pic_intr), and so is the wish for an exit once interrupts are enabled. Where it is not, the
        vCPU's thread is made to look again. On Xen it is that vector alone, without EOI (hvm/irq.c).
        """
        if self._callback:
            vector, wanted = self._callback
            self._run[kvm.RUN_REQUEST_INTERRUPT_WINDOW] = wanted() and not self._parking.interrupt(vector)
        return True

    def recent(self) -> tuple[int, ...]:
        """Return nothing: KVM keeps no history."""
        return ()

    def capture(self, keeper: Keeper) -> dict[str, Any]:
        """Return what is kept of it, its TSC apart. Between runs. Raises EngineError."""
        self._parking.learn()
        return {"kvm": keeper.capture(self._fd), "parking": keep(self._parking)}

    def apply(self, keeper: Keeper, state: dict[str, Any]) -> None:
        """Go on from what capture() returned; the TSC is right already. Between runs. Raises EngineError."""
        keeper.apply(self._fd, state["kvm"])
        put_back(self._parking, state["parking"])
        self._run[kvm.RUN_DIRTY_REGS] = self._run[kvm.RUN_REQUEST_INTERRUPT_WINDOW] = 0
        self._callback = None  # who wants one asks again
        self._fresh = self._ended = False

    @property
    def tsc_offset(self) -> int:
        """What the vCPU's TSC is ahead of the host's, modulo 2**64. Between runs. Raises EngineError."""
        from pvh.engines.kvm.kept_state import tsc_offset  # only where there are snapshots

        return tsc_offset(self._fd)

    @tsc_offset.setter
    def tsc_offset(self, offset: int) -> None:
        from pvh.engines.kvm.kept_state import set_tsc_offset

        set_tsc_offset(self._fd, offset)

    def close(self) -> None:
        """Give the vCPU back."""
        self._run.close()
        os.close(self._fd)

    def _io(self, sink: Sink) -> bool:
        direction, size, port, count, offset = kvm.RUN_IO.unpack_from(self._run, kvm.RUN_UNION)
        if port == PORT and direction and self._hypercall(sink):
            return True
        for at in range(offset, offset + count * size, size):
            if direction:
                sink(PortOut(port, size, int.from_bytes(self._run[at : at + size], "little")))
            else:
                value = (sink(PortIn(port, size)) or 0) & (1 << 8 * size) - 1
                self._run[at : at + size] = value.to_bytes(size, "little")
        return True

    def _at_site(self, linear: int, *, paging: bool) -> bool:
        """Tell whether the OUT is ours. RIP is on it, or behind it where KVM emulates it: tried as last found."""
        sites = self._around.sites
        for behind in self._behind:
            at = self._physical(linear - behind) if paging else linear - behind
            if at in sites.patched or at in sites:
                if behind != self._behind[0]:
                    self._behind = self._behind[::-1]
                return True
        return False

    def _physical(self, linear: int) -> int:
        """Translate a linear address by the guest's page tables (KVM_TRANSLATE); -1 when it is not mapped."""
        answer = bytearray(kvm.TRANSLATION.pack(linear & _MASK64, 0, 0))
        kvm.must("an address translation", self._fd, kvm.TRANSLATE, answer)
        _, physical, valid = kvm.TRANSLATION.unpack(answer)
        return int(physical) if valid else -1

    def _hypercall(self, sink: Sink) -> bool:
        """Carry out a hypercall if the OUT is where one was; return whether it is."""
        bits, cpl, base, paging = registers.running_code(self._run, kvm.RUN_SREGS)
        rax, rbx, rcx, rdx, rsi, rdi, _, _, r8, _, r10, _, _, _, _, _, rip, _ = registers.REGS.unpack_from(
            self._run, kvm.RUN_REGS
        )
        if bits == 64:
            mask, args = _MASK64, (rdi, rsi, rdx, r10, r8)
        else:
            mask = 0xFFFFFFFF
            args = (rbx & mask, rcx & mask, rdx & mask, rsi & mask, rdi & mask)
        if not self._at_site(base + rip & mask, paging=paging):
            return False
        answer = sink(Hypercall(rax & mask, args, bits, cpl)) or 0
        kvm.U64.pack_into(self._run, kvm.RUN_REGS, answer & mask)  # rax is the first of kvm_regs
        self._run[kvm.RUN_DIRTY_REGS] |= kvm.SYNC_REGS
        return True

    def _xen(self, sink: Sink) -> bool:
        """KVM_EXIT_XEN: KVM took the registers out, and puts the result into RAX and steps over the instruction."""
        kind, long_mode, cpl, number, _, *params = kvm.RUN_XEN.unpack_from(self._run, kvm.RUN_UNION)
        if kind != kvm.XEN_HCALL:
            return self._break(sink, f"KVM_EXIT_XEN of unknown type {kind}")
        bits = registers.running_code(self._run, kvm.RUN_SREGS)[0]
        mask = _MASK64 if long_mode else 0xFFFFFFFF
        a, b, c, d, e = (value & mask for value in params[:5])
        answer = (sink(Hypercall(number & mask, (a, b, c, d, e), bits, cpl)) or 0) & mask
        kvm.U64.pack_into(self._run, kvm.RUN_XEN_RESULT, answer)
        return True

    def _mmio(self, sink: Sink) -> bool:
        address, data, size, is_write = kvm.RUN_MMIO.unpack_from(self._run, kvm.RUN_UNION)
        if self._around.ram.block(address, size):
            raise self._memory_vanished()  # KVM gives EFAULT; a software KVM takes RAM it cannot touch for a device
        if is_write:
            sink(MmioWrite(address, size, int.from_bytes(data[:size], "little")))
        else:
            value = (sink(MmioRead(address, size)) or 0) & (1 << 8 * size) - 1
            self._run[kvm.RUN_MMIO_DATA : kvm.RUN_MMIO_DATA + size] = value.to_bytes(size, "little")
        return True

    def _rdmsr(self, sink: Sink) -> bool:
        index = kvm.RUN_MSR.unpack_from(self._run, kvm.RUN_UNION)[2]
        value = sink(MsrRead(index))
        self._run[kvm.RUN_UNION] = value is None
        kvm.U64.pack_into(self._run, kvm.RUN_MSR_DATA, (value or 0) & _MASK64)
        return True

    def _wrmsr(self, sink: Sink) -> bool:
        _, _, index, value = kvm.RUN_MSR.unpack_from(self._run, kvm.RUN_UNION)
        self._run[kvm.RUN_UNION] = sink(MsrWrite(index, value)) is None
        return True

    def _halt(self, sink: Sink) -> bool:
        """HLT, which reaches user space only where KVM has no local APIC of its own."""
        sink(Halt(wakes=bool(self._run[kvm.RUN_IF_FLAG])))
        return True

    def _stopped(self, sink: Sink) -> bool:
        """KVM_EXIT_DEBUG: a single step is done, or a breakpoint met."""
        self.kick()
        if not self._single:
            sink(Break(kvm.U64.unpack_from(self._run, kvm.RUN_DEBUG_PC)[0]))
        return True

    def _shutdown(self, sink: Sink) -> bool:
        regs = self.state()
        # SVM leaves the VMCB undefined after a shutdown, so KVM puts the vCPU into its INIT state (kvm/svm/svm.c).
        lost = regs.rip == 0xFFF0 and regs.cs.base == 0xFFFF0000
        detail = "KVM reset the registers at the fault, as it does on AMD processors" if lost else ""
        sink(Shutdown(detail))
        return False

    def _internal_error(self, sink: Sink) -> bool:
        suberror, count, flags, size, code = kvm.RUN_INTERNAL.unpack_from(self._run, kvm.RUN_UNION)
        name = kvm.INTERNAL_ERRORS.get(suberror, f"suberror {suberror}")
        told = code[:size].hex(" ") if suberror == 1 and count >= 3 and flags & 1 else ""
        where = f" at RIP {self.state().rip:#x}" + (f", bytes {told}" if told else "")
        return self._break(sink, f"KVM cannot go on ({name}){where}")

    def _fail_entry(self, sink: Sink) -> bool:
        reason = kvm.U64.unpack_from(self._run, kvm.RUN_UNION)[0]
        return self._break(sink, f"the processor refused to enter the guest (hardware reason {reason:#x})")

    def _break(self, sink: Sink, detail: str) -> bool:
        sink(Broken(detail + self._around.weaknesses()))
        return False
