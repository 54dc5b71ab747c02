"""One vCPU of the emulator: the loop that runs it, what stops do to it, and the callbacks of its turn."""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.cpu_state import CpuState
from pvh.engines.emulator import intercepts, ports
from pvh.engines.emulator import libunicorn as uc
from pvh.engines.emulator.exceptions import EXTERNAL, Event, Unsupported, deliver, fault
from pvh.engines.emulator.msr import MsrBank
from pvh.engines.emulator.native import RUN, WINDOW
from pvh.engines.emulator.paging import LinearMemory
from pvh.engines.emulator.registers import RAX, RCX, Registers
from pvh.engines.emulator.vmcb import MSR_WRITE
from pvh.engines.exits import Break, Broken, Exit, MmioRead, MmioWrite, PortIn, PortOut, Shutdown, Sink
from pvh.hints import TYPE_CHECKING, Any
from pvh.kept import keep, put_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.engines.emulator.cpuid import CpuidLookup
    from pvh.engines.emulator.vm import EmulatorVm

_M64 = 2**64 - 1
_DR6_BS = 1 << 14
STOP_BLOCKS = 100  # what a stop costs of a turn: it takes as long as that many blocks
_FETCH_FAILED = frozenset({uc.ERR_FETCH_PROT, uc.ERR_FETCH_UNMAPPED})


class EmulatorVcpu:
    """A processor of the emulator engine; see engines/engine.py for what its methods promise.

    During MmioRead and MmioWrite the RIP of state() may be that of an earlier instruction of the same block.
    """

    def __init__(self, vm: EmulatorVm, index: int, cpuid: CpuidLookup) -> None:
        self._index = index
        self._cpuid = cpuid
        self.processor = vm.processor
        self.registers = Registers(vm.processor.handle, vm.layout)
        self.memory = LinearMemory(vm.ram, self.registers)
        self.msrs = MsrBank(index, 0, boot=index == 0)
        self._counter = vm.counter
        self.tsc_offset = vm.tsc_offset
        self.pending: set[int] = set()
        self._callback: tuple[int, Callable[[], bool]] | None = None
        self.rip = 0
        self._executed = 0
        self._nmi = False
        self._loaded = False
        self._load_later: CpuState | None = None
        self._loads = 0
        self._down = self._parked = self._kicked = False
        self._sink: Sink | None = None
        self._failure: BaseException | None = None
        self._left: ports.Left | None = None
        self._trail: tuple[int, ...] = ()

    KEPT = ("registers", "msrs", "tsc_offset", "pending", "rip", "_nmi", "_loaded", "_down", "_parked")

    def capture(self) -> dict[str, Any]:
        """Return what is kept of it. Between runs."""
        self._take_load()
        if self._loaded:
            self.processor.occupy(self)
            self.registers.save()
        return keep(self)

    def apply(self, state: dict[str, Any]) -> None:
        """Go on from what capture() returned, on this or another guest of the same image. Between runs."""
        self._load_later = self._callback = None
        put_back(self, state)
        self._trail = ()

    def shift_tsc(self, ticks: int) -> None:
        """Have the time stamp counter count from so much later. Between runs, and not in its turn."""
        self.tsc_offset += ticks
        self.registers.tsc_offset += ticks

    def close(self) -> None:
        """Give everything back."""
        self.registers.free()

    @property
    def index(self) -> int:
        """The vCPU id, from 0."""
        return self._index

    @property
    def executed(self) -> int:
        """Basic blocks executed so far; a stop counts as some."""
        return self._executed

    def load(self, state: CpuState) -> None:
        """Set every register of the record; what it does not hold has its reset value.

        While an instruction of a vCPU waits for its sink's answer, this takes effect when that is over.
        """
        self._loads += 1
        self._down = self._parked = self._nmi = False
        self.pending.clear()
        self._callback = None
        if self.processor.executing:
            self._load_later = state
            self.processor.request_stop()
            return
        self.processor.occupy(self)
        self.msrs = MsrBank(self._index, state.mtrr_def_type, boot=self._index == 0)
        self.processor.enter(self.processor.scratch.write(state, tsc_offset=self.tsc_offset), state.gprs)
        for index, value in state.msrs:
            self.processor.handle.write_msr(index, value)
        self.registers.save()
        self._load_breakpoints(state)
        self.rip = state.rip
        self._loaded = True

    def _load_breakpoints(self, state: CpuState) -> None:
        """Set DR0 to DR3, which are not in a VMCB and keep what they had."""
        changed = [index for index, value in enumerate(state.debug_registers[:4]) if self.registers.dr(index) != value]
        for index in changed:
            self.registers.set_dr(index, state.debug_registers[index])
        if changed:
            self.registers.commit()

    def state(self) -> CpuState:
        """Return the registers; a record of zeroes before the first load()."""
        if self._load_later is not None:
            return self._load_later
        if not self._loaded:
            return CpuState()
        if self._is_executing():
            self.registers.save()
            return self.registers.state(self.registers.rip, self.msrs.mtrr_def_type)
        return self.registers.state(self.rip, self.msrs.mtrr_def_type)

    def assign(self, gprs: tuple[int, ...], rip: int, rflags: int) -> None:
        """Change the general registers, RIP and RFLAGS, and nothing else. Between runs."""
        for index, value in enumerate(gprs):
            self.registers.set_gpr(index, value)
        self.registers.flags = rflags
        self.rip = rip
        if self.processor.is_occupied_by(self):
            self.registers.commit()

    def _is_executing(self) -> bool:
        return self.processor.executing and self.processor.is_occupied_by(self)

    def kick(self) -> None:
        """Make run() return soon; from any thread."""
        self._kicked = True
        self.processor.request_stop()

    def raise_vector(self, vector: int) -> None:
        """Interrupt the guest as soon as it accepts interrupts, highest vector first. From the vCPU's own thread."""
        self.pending.add(vector & 0xFF)
        self.processor.request_stop()

    def inject(self, vector: int, wanted: Callable[[], bool]) -> None:
        """Interrupt the guest whenever it accepts interrupts, as long as wanted(). From the vCPU's own thread."""
        self._callback = vector & 0xFF, wanted
        self.processor.request_stop()

    def is_interrupted(self) -> bool:
        """Whether an interrupt waits to be delivered."""
        if self._callback and not self._callback[1]():
            self._callback = None
        return bool(self.pending or self._callback)

    def nmi(self) -> None:
        """Make an NMI pending; further ones are lost until it is taken, as the processor does."""
        self._nmi = True

    def park(self) -> None:
        """Have run() execute nothing until resume() or load()."""
        self._parked = True

    def resume(self) -> None:
        """Have run() go on where park() stopped it."""
        self._parked = False

    def doze(self) -> None:
        """Do nothing: whoever runs the vCPU knows of every interrupt."""

    def rouse(self) -> None:
        """Do nothing, as there is no dozing here."""

    def awaits(self) -> None:
        """Tell nothing: there is no local APIC here."""
        return

    def sleeps(self) -> bool:
        """Tell no: whoever runs it was given its HLT as an exit."""
        return False

    def ignore_sipi(self) -> None:
        """Do nothing: no SIPI comes here."""

    def tsc(self) -> int:
        """Return what RDTSC would give now; from any thread."""
        return self._counter() + self.tsc_offset & _M64

    def recent(self) -> tuple[int, ...]:
        """Return linear addresses of the last blocks executed, newest last."""
        return self.processor.stopper.trail() if self.processor.is_occupied_by(self) else self._trail

    def leave(self) -> None:
        """Keep what the processor will forget when another vCPU gets it."""
        self.registers.save()
        self.registers.keep_flags()
        self._trail = self.processor.stopper.trail()

    def run(self, sink: Sink, blocks: int | None = None) -> None:
        """Execute until kicked or shut down, or for one turn of blocks, giving every exit to the sink."""
        self._sink = sink
        left = blocks
        try:
            self._take_load()
            while self._loaded and not self._down and not self._parked:
                if self._kicked:
                    self._kicked = False
                    return
                self.processor.occupy(self)
                spent = self._step(left)
                self._executed += spent
                if left is not None:
                    left -= spent
                    if left <= 0:
                        return
                self._take_load()
        except Unsupported as cause:
            self._down = True
            sink(Broken(str(cause)))
        finally:
            self._sink = None

    def step(self, sink: Sink) -> None:
        """Execute one instruction, after taking an interrupt that waits."""
        self._kicked = False
        self._sink = sink
        try:
            self._take_load()
            if self._loaded and not self._down and not self._parked:
                self.processor.occupy(self)
                self._step(1, single=True)
            self._take_load()
        except Unsupported as cause:
            self._down = True
            sink(Broken(str(cause)))
        finally:
            self._sink = None
            self._kicked = False

    def _take_load(self) -> None:
        state, self._load_later = self._load_later, None
        if state is not None:
            self.load(state)

    def _step(self, blocks: int | None, *, single: bool = False) -> int:
        """Run until the next stop and act on it; return the blocks that took, or were worth as much time.

        single  stop behind one instruction at the latest
        """
        processor = self.processor
        processor.refresh_code()
        mode, bound = self._before_start()
        count = processor.stopper.bound(mode, blocks if bound is None else bound)
        # A request that came meanwhile has been overwritten.
        if self._kicked or processor.code_is_stale:
            processor.request_stop()
        before = processor.stopper.executed
        status = processor.run(self.rip, count, single=single)
        self.registers.save()
        self.rip = self.registers.rip
        number, processor.number = processor.number, 0
        left, self._left = self._left, None
        if number or left is not None:
            processor.stopper.charge(STOP_BLOCKS)
        if left is not None:
            self._leave_port(left)
        elif number:
            intercepts.handle(self, number)
        elif status in _FETCH_FAILED:
            # No memory there: hardware fetches ones, and ff ff is no instruction.
            self.deliver(fault(x86.UD))
        elif status != uc.ERR_OK:
            raise Unsupported(f"the emulator gave up: {processor.handle.error_text(status)}")
        elif processor.breakpoints.hit is not None and self._sink is not None:
            self._sink(Break(processor.breakpoints.hit))
        processor.breakpoints.hit = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return processor.stopper.executed - before

    def _before_start(self) -> tuple[int, int | None]:
        """Deliver an interrupt that is pending, if possible; return the mode, and the number of blocks or None."""
        registers = self.registers
        if self._nmi and not registers.in_nmi and not registers.interrupt_shadow:
            self._nmi = False
            self.deliver(Event(x86.NMI, None, EXTERNAL))
            registers.begin_nmi()
        if self.is_interrupted() and registers.flags & x86.RFLAGS_IF:
            if registers.interrupt_shadow:
                # The block behind STI or MOV SS is one instruction long.
                return RUN, 1
            self.deliver(Event(self._take_vector(), None, EXTERNAL))
        # While an NMI waits for the end of another's handler, every block may end with that IRET.
        return WINDOW if self.pending or self._callback else RUN, 1 if self._nmi else None

    def _take_vector(self) -> int:
        """Choose what is delivered: the callback, before what local APICs ask for (xen: hvm_vcpu_has_pending_irq)."""
        if self._callback:
            return self._callback[0]
        vector = max(self.pending)
        self.pending.remove(vector)
        return vector

    def deliver(self, event: Event, length: int = 0) -> None:
        """Enter the guest's handler for an event; length is that of an instruction that is over then."""
        target = deliver(self.registers, self.memory, event, self.rip, self.rip + length)
        if target is None:
            self.shut_down(f"vector {event.vector} at {self.rip:#x} could not be delivered, nor could the double fault")
        else:
            self.go(target)

    def go(self, rip: int) -> None:
        """Continue at an offset in CS with the snapshot's registers."""
        self.registers.commit()
        self.rip = rip

    def advance(self, length: int) -> None:
        """An instruction was executed by the engine: step over it."""
        registers = self.registers
        self.rip = self.rip + length & (1 << registers.bits) - 1
        registers.end_shadow()
        registers.commit()
        if registers.flags & x86.RFLAGS_TF:
            registers.set_dr(6, registers.dr(6) | _DR6_BS)
            self.deliver(fault(x86.DB))

    def set_tsc(self, value: int) -> None:
        """Make the time stamp counter go on from a value."""
        self.tsc_offset = value - self._counter()
        self.registers.tsc_offset = self.tsc_offset

    def set_efer(self, value: int) -> None:
        """Set EFER by the library's own code, so that mode bits and TLB follow; the permission map lets it through."""
        handle, scratch = self.processor.handle, self.processor.scratch
        self.registers.commit()
        scratch.allow_msr(x86.MSR_EFER, MSR_WRITE)
        handle.write_msr(x86.MSR_EFER, value)
        scratch.trap_msr(x86.MSR_EFER, MSR_WRITE)
        handle.flush_tlb()
        self.registers.save()

    def ask(self, exit_: Exit) -> tuple[bool, int | None]:
        """Give an exit to the sink; return whether the instruction is over, and the answer.

        It is not where the vCPU was kicked before (the instruction will be executed again) or loaded meanwhile.
        """
        if self._kicked or self._sink is None:
            return False, None
        loads = self._loads
        answer = self._sink(exit_)
        # The sink may have loaded another vCPU.
        self.processor.occupy(self)
        return self._loads == loads, answer

    def shut_down(self, detail: str) -> None:
        """A triple fault."""
        self._down = True
        if self._sink is not None:
            self._sink(Shutdown(detail))

    def _answer(self, exit_: Exit) -> int:
        """Give an exit to the sink from a callback, which no exception may leave: it is kept, and the run stopped."""
        try:
            return (self._sink(exit_) if self._sink is not None else None) or 0
        except BaseException as failure:  # noqa: BLE001
            self._failure = failure
            self.processor.request_stop()
            return 0

    def on_in(self, port: int, size: int) -> int:
        """Answer IN."""
        if self._is_forbidden(port, size):
            return 0
        value = self._answer(PortIn(port, size))
        if self._kicked:
            self._leave(ports.finished(self.registers, self.memory, size, value))
        return value & 0xFFFFFFFF

    def on_out(self, port: int, size: int, value: int) -> None:
        """Take OUT."""
        if self._is_forbidden(port, size):
            return
        self._answer(PortOut(port, size, value))
        if self._kicked:
            self._leave(ports.finished(self.registers, self.memory, size, None))

    def on_read(self, address: int, size: int) -> int:
        """Answer a load from where there is no memory."""
        return self._answer(MmioRead(address, size)) & _M64

    def on_write(self, address: int, size: int, value: int) -> None:
        """Take a store to where there is no memory."""
        self._answer(MmioWrite(address, size, value))

    def on_cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Answer CPUID."""
        return self._cpuid.answer(leaf, subleaf)

    def _is_forbidden(self, port: int, size: int) -> bool:
        registers = self.registers
        registers.save()
        event = ports.forbidden(registers, self.memory, port, size)
        if event is not None:
            self._leave(ports.Left(event, 0, registers.gpr(RCX), registers.gpr(RAX)))
        return event is not None

    def _leave(self, left: ports.Left | None) -> None:
        """Have the hook leave the instruction when the callback returns."""
        control = self.processor.stopper.control
        if left is not None and control is not None:
            self._left = left
            control.leave.value = 1

    def _leave_port(self, left: ports.Left) -> None:
        registers = self.registers
        registers.set_gpr(RCX, left.rcx)
        registers.set_gpr(RAX, left.rax)
        registers.commit()
        if left.event is not None:
            self.deliver(left.event)
        else:
            self.advance(left.length)
