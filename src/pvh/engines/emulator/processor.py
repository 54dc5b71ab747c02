"""The one emulated processor that a guest's vCPUs take turns on.

One uc_engine for all of them: so they share translated code, and a store to code by one is seen by all (with an engine
each, code that one vCPU patched would stay as it was for the others). A turn changes by copying contexts and forgetting
cached address translations, in 2 us. Callbacks go to the vCPU whose turn it is.
"""

from __future__ import annotations

from pvh.abi import x86
from pvh.build.ram import Block, GuestRam
from pvh.engines.emulator import calibrate, native
from pvh.engines.emulator import libunicorn as uc
from pvh.engines.emulator.breakpoints import Breakpoints
from pvh.engines.emulator.code import CodeMap
from pvh.engines.emulator.msr import allow_native
from pvh.engines.emulator.native import RUN, STOP
from pvh.engines.emulator.registers import Registers
from pvh.engines.emulator.stop import Stopper
from pvh.engines.emulator.vmcb import CODE, Scratch
from pvh.hints import Protocol

# Numbers of our own, for the two hooks that are no intercepts.
STOPPED_AT_SYSCALL = 0x1000
STOPPED_AT_SYSENTER = 0x1001

# MAXPHYADDR of the guest: everything below that is not RAM is I/O.
_ADDRESS_LIMIT = 1 << 40
_NEAR = 2 << 20
# Linux asks for grant frames at the end of what would be its next 128 MiB of RAM.
_BEHIND_RAM = 256 << 20
_RWX = uc.PROT_READ | uc.PROT_WRITE | uc.PROT_EXEC
_FCW_RESET = 0x40
_MXCSR_RESET = 0x1F80


class Occupant(Protocol):
    """A vCPU as the processor sees it. The on_ methods are called while the library executes and must not raise."""

    registers: Registers

    def leave(self) -> None:
        """Its turn is over: take what must be kept."""
        ...

    def on_in(self, port: int, size: int) -> int:
        """Answer IN."""
        ...

    def on_out(self, port: int, size: int, value: int) -> None:
        """Take OUT."""
        ...

    def on_read(self, address: int, size: int) -> int:
        """Answer a load from where there is no memory."""
        ...

    def on_write(self, address: int, size: int, value: int) -> None:
        """Take a store to where there is no memory."""
        ...

    def on_cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Answer CPUID."""
        ...


class Processor:
    """The library's engine with everything a guest needs around it.

    number     of the intercept that ended the last run, 0 for none
    executing  a callback is what is called now, if anything
    """

    def __init__(self, ram: GuestRam, intercepts: tuple[int, ...] = ()) -> None:
        """intercepts: exit codes of instructions that are to stop it beside those that always do."""
        self.handle = uc.Handle()
        self.scratch = Scratch(intercepts)
        allow_native(self.scratch)
        calibrate.enable_svm(self.handle, self.scratch)
        self._io: dict[int, int] = {}  # regions of I/O: start, end
        self._io_hooks = uc.MmioReadHook(self._on_read), uc.MmioWriteHook(self._on_write)
        self._map(ram)
        self._reset = uc.Context(self.handle)
        self.stopper = Stopper(self.handle)
        self._add_hooks(self.stopper.control)
        self._code = CodeMap(self.handle, ram.blocks, self.stopper.control)
        self.breakpoints = Breakpoints(self.handle)
        self.number = 0
        self.executing = False
        self._stale_code = self._single = False
        self._occupant: Occupant | None = None

    def close(self) -> None:
        """Give everything back."""
        self._reset.free()
        self.handle.close()

    def _map(self, ram: GuestRam) -> None:
        """Show RAM to the processor, and take accesses to everything between and above."""
        at = 0
        for block in ram.blocks:
            self._map_io(at, block.gpa)
            self.handle.map_memory(block.gpa, block.size, block.host, _RWX)
            at = block.end
            following = next((later.gpa for later in ram.blocks if later.gpa >= at), _ADDRESS_LIMIT)
            # Unmapping takes time for each page, so what may become memory is not in the large region behind.
            split = min(at + _BEHIND_RAM, following)
            self._map_io(at, split)
            at = split
        self._map_io(at, _ADDRESS_LIMIT)

    def _map_io(self, start: int, end: int) -> None:
        if start < end:
            self.handle.map_io(start, end - start, *self._io_hooks)
            self._io[start] = end

    def add(self, block: Block) -> bool:
        """Show one more block of RAM to the processor, where there was I/O. Between runs."""
        start = max((at for at in self._io if at <= block.gpa), default=None)
        if start is None or self._io[start] < block.end:
            return False
        end = self._io.pop(start)
        self.handle.unmap(start, end - start)
        # The next such block, which is likely to be near, gets a small region.
        low, high = (max(start, block.gpa & -_NEAR), min(end, (block.end + _NEAR - 1) & -_NEAR))
        for piece in ((start, low), (low, block.gpa), (block.end, high), (high, end)):
            self._map_io(*piece)
        self.handle.map_memory(block.gpa, block.size, block.host, _RWX)
        self._code.cover(block.gpa, block.size)
        self.handle.flush_tlb()
        return True

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
        add(uc.HOOK_INSN, uc.CpuidHook(self._on_cpuid), uc.INS_CPUID)
        add(uc.HOOK_INSN, uc.VoidHook(lambda *_: self._on_interrupt(0, STOPPED_AT_SYSCALL, 0)), uc.INS_SYSCALL)
        add(uc.HOOK_INSN, uc.VoidHook(lambda *_: self._on_interrupt(0, STOPPED_AT_SYSENTER, 0)), uc.INS_SYSENTER)

    def occupy(self, vcpu: Occupant) -> None:
        """Make it a vCPU's turn. Not while another's instruction waits for a callback."""
        if self._occupant is vcpu:
            return
        if self._occupant is not None:
            self._occupant.leave()
        self._occupant = vcpu
        vcpu.registers.commit()
        self.handle.flush_tlb()
        self.stopper.forget_trail()

    def vacate(self) -> None:
        """Make it nobody's turn: what the processor holds does not count any more. Between runs."""
        self._occupant = None

    def is_occupied_by(self, vcpu: Occupant) -> bool:
        """Return whether it is a vCPU's turn."""
        return self._occupant is vcpu

    def enter(self, vmcb: int, gprs: tuple[int, ...]) -> None:
        """Load the state of a VMCB and general registers into the processor, in the occupant's place."""
        self._reset.restore()
        for register, value in zip(uc.REG_GPRS, gprs, strict=True):
            self.handle.write(register, value)
        self.handle.write(uc.REG_RAX, vmcb)
        self.handle.write(uc.REG_FPCW, _FCW_RESET)
        self.handle.write(uc.REG_MXCSR, _MXCSR_RESET)
        # Two instructions of entry code; the first block behind them is the guest's. Should its fetch fault, it will do
        # so again when the guest is run.
        self.handle.start(CODE, 2 * self.stopper.bound(RUN, 1))
        self.handle.flush_tlb()
        self.stopper.forget_trail()
        self.number = 0

    def run(self, rip: int, count: int, *, single: bool = False) -> int:
        """Execute until something stops it, or a single instruction; return the library's status."""
        if single != self._single:
            self._single = single
            self.handle.flush_code()  # instructions are counted by what they were translated to
        self.executing = True
        try:
            return self.handle.start(rip, 1 if single else count)
        finally:
            self.executing = False

    def request_stop(self) -> None:
        """Stop before the next block; from any thread, and from callbacks."""
        self.stopper.ask(STOP)

    def code_changed(self) -> None:
        """Have translated code forgotten before the next block runs."""
        self._stale_code = True
        self.request_stop()

    def refresh_code(self) -> None:
        """Forget translated code that was reported to be stale. Between runs."""
        if self._stale_code:
            self._stale_code = False
            self.handle.flush_code()

    @property
    def code_is_stale(self) -> bool:
        """Translated code has been reported to be stale."""
        return self._stale_code

    def _on_interrupt(self, _uc: int, number: int, _data: int) -> None:
        self.number = number
        self.handle.stop()

    def _on_in(self, _uc: int, port: int, size: int, _data: int) -> int:
        return self._occupant.on_in(port, size) if self._occupant is not None else 0

    def _on_out(self, _uc: int, port: int, size: int, value: int, _data: int) -> None:
        if self._occupant is not None:
            self._occupant.on_out(port, size, value)

    def _on_read(self, _uc: int, offset: int, size: int, base: int | None) -> int:
        return self._occupant.on_read((base or 0) + offset, size) if self._occupant is not None else 0

    def _on_write(self, _uc: int, offset: int, size: int, value: int, base: int | None) -> None:
        if self._occupant is not None:
            self._occupant.on_write((base or 0) + offset, size, value)

    def _on_cpuid(self, _uc: int, _data: int) -> int:
        handle = self.handle
        leaf, subleaf = handle.read(uc.REG_RAX) & 0xFFFFFFFF, handle.read(uc.REG_RCX) & 0xFFFFFFFF
        answer = self._occupant.on_cpuid(leaf, subleaf) if self._occupant is not None else (0, 0, 0, 0)
        for register, value in zip((uc.REG_RAX, uc.REG_RBX, uc.REG_RCX, uc.REG_RDX), answer, strict=True):
            handle.write(register, value)
        return 1
