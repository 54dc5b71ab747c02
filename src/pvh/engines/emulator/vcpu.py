"""One emulated processor: the loop that runs it, and the callbacks that must answer while it executes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvh.abi import x86
from pvh.build.cpu_state import CpuState
from pvh.engines.emulator import calibrate, intercepts, native, ports
from pvh.engines.emulator import libunicorn as uc
from pvh.engines.emulator.cpuid import CpuidLookup
from pvh.engines.emulator.exceptions import EXTERNAL, Event, Unsupported, deliver, fault
from pvh.engines.emulator.msr import MsrBank, allow_native
from pvh.engines.emulator.native import host_tsc
from pvh.engines.emulator.paging import LinearMemory
from pvh.engines.emulator.registers import RAX, RCX, Registers
from pvh.engines.emulator.stop import RUN, STOP, WINDOW, Stopper
from pvh.engines.emulator.vmcb import CODE, MSR_WRITE, Scratch
from pvh.engines.exits import Broken, Exit, MmioRead, MmioWrite, PortIn, PortOut, Shutdown, Sink

if TYPE_CHECKING:
    from pvh.engines.emulator.vm import EmulatorVm

_M64 = 2**64 - 1
_FCW_RESET = 0x40
_MXCSR_RESET = 0x1F80
_DR6_BS = 1 << 14
_FETCH_FAILED = frozenset({uc.ERR_FETCH_PROT, uc.ERR_FETCH_UNMAPPED})


class EmulatorVcpu:
    """A processor of the emulator engine; see engines/engine.py for what its methods promise.

    During MmioRead and MmioWrite the RIP of state() may be that of an earlier instruction of the same block.
    """

    def __init__(self, vm: EmulatorVm, index: int, cpuid: CpuidLookup) -> None:
        self._vm = vm
        self._index = index
        self._cpuid = cpuid
        self.pending: set[int] = set()
        self.rip = 0
        self.tsc_offset = vm.tsc_offset
        self._number = 0
        self._sink: Sink | None = None
        self._failure: BaseException | None = None
        self._left: ports.Left | None = None
        self._executing = False
        self._loads = 0
        self._kicked = False
        self._stale_code = False
        self._down = True
        self.msrs = MsrBank(index, 0, boot=index == 0)
        self._stopper: Stopper | None = None

    def _open(self) -> Stopper:
        """Make the emulated processor: with the first load(), as one that stays in reset costs 3 MB."""
        self.handle = uc.Handle()
        self.scratch = Scratch()
        allow_native(self.scratch)
        calibrate.enable_svm(self.handle, self.scratch)
        self._vm.map_into(self.handle, self._read_mmio, self._write_mmio)
        self.registers = Registers(self.handle, self._vm.layout)
        self._reset = uc.Context(self.handle)
        self.memory = LinearMemory(self._vm.ram, self.registers)
        self._stopper = Stopper(self.handle)
        self._add_hooks(self._stopper.control)
        return self._stopper

    def _add_hooks(self, control: native.ControlBlock | None) -> None:
        add = self.handle.hook
        on_in, on_out = uc.InHook(self._on_in), uc.OutHook(self._on_out)
        if control is None:
            add(uc.HOOK_INSN, on_in, uc.INS_IN)
            add(uc.HOOK_INSN, on_out, uc.INS_OUT)
        else:
            self._port_callbacks = (on_in, on_out)
            control.call_back(on_in, on_out, x86.MSR_VM_HSAVE_PA)
            add(uc.HOOK_INSN, native.pointer(control.in_hook), uc.INS_IN, control.address)
            add(uc.HOOK_INSN, native.pointer(control.out_hook), uc.INS_OUT, control.address)
        add(uc.HOOK_INTR, uc.IntrHook(self._on_interrupt))
        add(uc.HOOK_MEM_INVALID, uc.MemHook(lambda *_: False))
        add(uc.HOOK_INSN, uc.CpuidHook(self._on_cpuid), uc.INS_CPUID)
        add(uc.HOOK_INSN, uc.VoidHook(lambda *_: self._on_interrupt(0, intercepts.SYSCALL, 0)), uc.INS_SYSCALL)
        add(uc.HOOK_INSN, uc.VoidHook(lambda *_: self._on_interrupt(0, intercepts.SYSENTER, 0)), uc.INS_SYSENTER)

    def close(self) -> None:
        """Give everything back."""
        if self._stopper is not None:
            self._stopper = None
            self.registers.free()
            self._reset.free()
            self.handle.close()

    @property
    def index(self) -> int:
        """The vCPU id, from 0."""
        return self._index

    def load(self, state: CpuState) -> None:
        """Set every register of the record; what it does not hold has its reset value."""
        stopper = self._stopper or self._open()
        self._loads += 1
        self._down = False
        self.pending.clear()
        self.msrs = MsrBank(self._index, state.mtrr_def_type, boot=self._index == 0)
        self._reset.restore()
        address = self.scratch.write(state, tsc_offset=self.tsc_offset)
        self.registers.set_gprs(state.gprs)
        self.handle.write(uc.REG_RAX, address)
        self.handle.write(uc.REG_FPCW, _FCW_RESET)
        self.handle.write(uc.REG_MXCSR, _MXCSR_RESET)
        # Two instructions of entry code; the first block behind them is the guest's. Should its fetch fault, it will do
        # so again when the guest is run.
        self.handle.start(CODE, 2 * stopper.bound(RUN, single=True))
        self._number = 0
        self.registers.save()
        self.rip = state.rip

    def state(self) -> CpuState:
        """Return the registers; a record of zeroes before the first load()."""
        if self._stopper is None:
            return CpuState()
        if self._executing:
            self.registers.save()
            return self.registers.state(self.registers.rip, self.msrs.mtrr_def_type)
        return self.registers.state(self.rip, self.msrs.mtrr_def_type)

    def kick(self) -> None:
        """Make run() return soon; from any thread."""
        self._kicked = True
        self._request_stop()

    def raise_vector(self, vector: int) -> None:
        """Interrupt the guest as soon as it accepts interrupts, highest vector first. From the vCPU's own thread."""
        self.pending.add(vector & 0xFF)
        self._request_stop()

    def _request_stop(self) -> None:
        if self._stopper is not None:
            self._stopper.ask(STOP)

    def tsc(self) -> int:
        """Return what RDTSC would give now; from any thread."""
        return host_tsc() + self.tsc_offset & _M64

    def recent(self) -> tuple[int, ...]:
        """Return linear addresses of the last blocks executed, newest last."""
        return self._stopper.trail() if self._stopper is not None else ()

    def code_changed(self) -> None:
        """Have translated code forgotten before the next block runs."""
        self._stale_code = True
        self._request_stop()

    def run(self, sink: Sink) -> None:
        """Execute until kicked or shut down, giving every exit to the sink."""
        stopper = self._stopper
        self._sink = sink
        try:
            while stopper is not None and not self._down:
                if self._kicked:
                    self._kicked = False
                    return
                self._step(stopper)
        except Unsupported as cause:
            self._down = True
            sink(Broken(str(cause)))
        finally:
            self._sink = None

    def _step(self, stopper: Stopper) -> None:
        """Run until the next stop and act on it."""
        if self._stale_code:
            self._stale_code = False
            self.handle.flush_code()
        mode, shadow = self._before_start()
        count = stopper.bound(mode, single=shadow)
        # A request that came meanwhile has been overwritten.
        if self._kicked or self._stale_code:
            stopper.ask(STOP)
        self._executing = True
        status = self.handle.start(self.rip, count)
        self._executing = False
        self.registers.save()
        self.rip = self.registers.rip
        number, self._number = self._number, 0
        if self._left is not None:
            left, self._left = self._left, None
            self._leave_port(left)
        elif number:
            intercepts.handle(self, number)
        elif status in _FETCH_FAILED:
            # No memory there: hardware fetches ones, and ff ff is no instruction.
            self.deliver(fault(x86.UD))
        elif status != uc.ERR_OK:
            raise Unsupported(f"the emulator gave up: {self.handle.error_text(status)}")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _before_start(self) -> tuple[int, bool]:
        """Deliver a pending interrupt if possible; return the mode, and whether to run one block in a shadow."""
        if self.pending and self.registers.flags & x86.RFLAGS_IF:
            if self.registers.interrupt_shadow:
                # The block behind STI or MOV SS is one instruction long.
                return RUN, True
            vector = max(self.pending)
            self.pending.remove(vector)
            self.deliver(Event(vector, None, EXTERNAL))
        return WINDOW if self.pending else RUN, False

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
        bits = registers.bits
        self.rip = self.rip + length & (1 << bits) - 1
        registers.end_shadow()
        registers.commit()
        if registers.flags & x86.RFLAGS_TF:
            registers.set_dr(6, registers.dr(6) | _DR6_BS)
            self.deliver(fault(x86.DB))

    def set_tsc(self, value: int) -> None:
        """Make the time stamp counter go on from a value."""
        self.tsc_offset = value - host_tsc()
        self.registers.tsc_offset = self.tsc_offset

    def set_efer(self, value: int) -> None:
        """Set EFER by the library's own code, so that mode bits and TLB follow; the permission map lets it through."""
        self.registers.commit()
        self.scratch.allow_msr(x86.MSR_EFER, MSR_WRITE)
        self.handle.write_msr(x86.MSR_EFER, value)
        self.scratch.trap_msr(x86.MSR_EFER, MSR_WRITE)
        self.handle.flush_tlb()
        self.registers.save()

    def ask(self, exit_: Exit) -> tuple[bool, int | None]:
        """Give an exit to the sink; return whether the instruction is over, and the answer.

        It is not where the vCPU was kicked before (the instruction will be executed again) or loaded meanwhile.
        """
        if self._kicked or self._sink is None:
            return False, None
        loads = self._loads
        answer = self._sink(exit_)
        return self._loads == loads, answer

    def shut_down(self, detail: str) -> None:
        """A triple fault."""
        self._down = True
        if self._sink is not None:
            self._sink(Shutdown(detail))

    # Callbacks while the library executes. An exception must not leave them: it is kept, and the run is stopped.

    def _on_interrupt(self, _uc: int, number: int, _data: int) -> None:
        self._number = number
        self.handle.stop()

    def _answer(self, exit_: Exit) -> int:
        try:
            return (self._sink(exit_) if self._sink is not None else None) or 0
        except BaseException as failure:  # noqa: BLE001
            self._failure = failure
            self._request_stop()
            return 0

    def _on_in(self, _uc: int, port: int, size: int, _data: int) -> int:
        if self._forbidden(port, size):
            return 0
        value = self._answer(PortIn(port, size))
        if self._kicked:
            self._leave(ports.finished(self.registers, self.memory, size, value))
        return value & 0xFFFFFFFF

    def _on_out(self, _uc: int, port: int, size: int, value: int, _data: int) -> None:
        if self._forbidden(port, size):
            return
        self._answer(PortOut(port, size, value))
        if self._kicked:
            self._leave(ports.finished(self.registers, self.memory, size, None))

    def _forbidden(self, port: int, size: int) -> bool:
        registers = self.registers
        registers.save()
        event = ports.forbidden(registers, self.memory, port, size)
        if event is not None:
            self._leave(ports.Left(event, 0, registers.gpr(RCX), registers.gpr(RAX)))
        return event is not None

    def _leave(self, left: ports.Left | None) -> None:
        """Have the hook leave the instruction when the callback returns."""
        if left is not None and self._stopper is not None and self._stopper.control is not None:
            self._left = left
            self._stopper.control.leave.value = 1

    def _leave_port(self, left: ports.Left) -> None:
        registers = self.registers
        registers.set_gpr(RCX, left.rcx)
        registers.set_gpr(RAX, left.rax)
        registers.commit()
        if left.event is not None:
            self.deliver(left.event)
        else:
            self.advance(left.length)

    def _on_cpuid(self, _uc: int, _data: int) -> int:
        handle = self.handle
        answer = self._cpuid.answer(handle.read(uc.REG_RAX) & 0xFFFFFFFF, handle.read(uc.REG_RCX) & 0xFFFFFFFF)
        for register, value in zip((uc.REG_RAX, uc.REG_RBX, uc.REG_RCX, uc.REG_RDX), answer, strict=True):
            handle.write(register, value)
        return 1

    def _read_mmio(self, _uc: int, offset: int, size: int, base: int | None) -> int:
        return self._answer(MmioRead((base or 0) + offset, size)) & _M64

    def _write_mmio(self, _uc: int, offset: int, size: int, value: int, base: int | None) -> None:
        self._answer(MmioWrite((base or 0) + offset, size, value))
