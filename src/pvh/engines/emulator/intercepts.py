"""What the engine does when the processor stops: at an exception, an intercepted instruction, a call to the kernel."""

from __future__ import annotations

from pvh.abi import x86
from pvh.engines.emulator import control, syscall
from pvh.engines.emulator import vmcb as svm
from pvh.engines.emulator.decode import Instruction, decode
from pvh.engines.emulator.exceptions import EXTERNAL, SOFTWARE, Event, Unsupported, fault
from pvh.engines.emulator.msr import GuestGp, check_efer
from pvh.engines.emulator.processor import STOPPED_AT_SYSCALL, STOPPED_AT_SYSENTER
from pvh.engines.emulator.registers import RAX, RBX, RCX, RDI, RDX, RSI
from pvh.engines.exits import Halt, Hypercall, MmioRead, MmioWrite, MsrRead, MsrWrite
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.engines.emulator.vcpu import EmulatorVcpu

# The library adds this to an SVM exit code.
INTERCEPT = 0x100

_M32 = 2**32 - 1
_TASK_PRIORITY = 0xFEE00080
_VMCALL, _VMMCALL = b"\x0f\x01\xc1", b"\x0f\x01\xd9"


def handle(vcpu: EmulatorVcpu, number: int) -> None:
    """Act on a stop. Raises Unsupported."""
    vector = number - INTERCEPT - svm.EXIT_EXCEPTION
    if 0 <= vector < 32:
        _exception(vcpu, vector)
        return
    action = _ACTIONS.get(number)
    if action is None:
        raise Unsupported(f"the emulator stopped for a reason it does not know: {number:#x}")
    action(vcpu)


def _exception(vcpu: EmulatorVcpu, vector: int) -> None:
    if vector == x86.PF:
        vcpu.deliver(fault(vector, vcpu.registers.error_code, vcpu.processor.scratch.fault_address))
    elif vector == x86.UD:
        instruction = _instruction(vcpu)
        # Neither needs a prefix, and F3 makes the second one VMGEXIT, an alias where there is no SEV-ES.
        if instruction.code[:3] in {_VMCALL, _VMMCALL}:
            _hypercall(vcpu, instruction)
        elif instruction.code[:1] == b"\xf1":
            _icebp(vcpu)
        else:
            vcpu.deliver(fault(vector))
    else:
        vcpu.deliver(fault(vector, vcpu.registers.error_code))


def _instruction(vcpu: EmulatorVcpu) -> Instruction:
    return decode(vcpu.memory.peek(vcpu.registers.linear_rip, 15), vcpu.registers.bits)


def _hypercall(vcpu: EmulatorVcpu, instruction: Instruction) -> None:
    registers = vcpu.registers
    bits = registers.bits
    if bits == 64:
        number = registers.gpr(RAX)
        args = [registers.gpr(index) for index in (RDI, RSI, RDX, 10, 8)]
    else:
        number = registers.gpr(RAX) & _M32
        args = [registers.gpr(index) & _M32 for index in (RBX, RCX, RDX, RSI, RDI)]
    exit_ = Hypercall(number, (args[0], args[1], args[2], args[3], args[4]), bits, registers.cpl)
    done, answer = vcpu.ask(exit_)
    if not done:
        return
    value = answer or 0
    registers.set_gpr(RAX, value if bits == 64 else value & _M32)
    vcpu.advance(instruction.prefixes + 3)


def _vmmcall(vcpu: EmulatorVcpu) -> None:
    _hypercall(vcpu, _instruction(vcpu))


def _halt(vcpu: EmulatorVcpu) -> None:
    instruction = _instruction(vcpu)
    enabled = bool(vcpu.registers.flags & x86.RFLAGS_IF)
    if not (enabled and vcpu.is_interrupted()):
        done, _ = vcpu.ask(Halt(wakes=enabled))
        if not done:
            return
    vcpu.advance(instruction.prefixes + 1)


def _rdtsc(vcpu: EmulatorVcpu) -> None:
    """RDTSC, and RDTSCP, which the library reports as the same."""
    instruction = _instruction(vcpu)
    registers = vcpu.registers
    value = vcpu.tsc()
    registers.set_gpr(RAX, value & _M32)
    registers.set_gpr(RDX, value >> 32)
    aux = instruction.code[:2] == b"\x0f\x01"
    if aux:
        registers.set_gpr(RCX, vcpu.processor.handle.read_msr(x86.MSR_TSC_AUX) & _M32)
    vcpu.advance(instruction.prefixes + (3 if aux else 2))


def _interrupt(vcpu: EmulatorVcpu) -> None:
    instruction = _instruction(vcpu)
    opcode = instruction.code[:1]
    if opcode == b"\xcd":
        vector, length = instruction.code[1], 2
    else:
        vector, length = {b"\xcc": x86.BP, b"\xce": x86.OF, b"\xf1": x86.DB}.get(opcode, x86.UD), 1
    vcpu.deliver(Event(vector, None, SOFTWARE), instruction.prefixes + length)


def _icebp(vcpu: EmulatorVcpu) -> None:
    vcpu.deliver(Event(x86.DB, None, EXTERNAL), _instruction(vcpu).prefixes + 1)


def _msr(vcpu: EmulatorVcpu) -> None:
    registers = vcpu.registers
    instruction = _instruction(vcpu)
    index = registers.gpr(RCX) & _M32
    try:
        # EXITINFO1 is 1 for WRMSR (AMD APM vol. 2, 15.11)
        done = _write_msr(vcpu, index) if registers.error_code & 1 else _read_msr(vcpu, index)
    except GuestGp:
        vcpu.deliver(fault(x86.GP))
        return
    if done:
        vcpu.advance(instruction.prefixes + 2)


def _read_msr(vcpu: EmulatorVcpu, index: int) -> bool:
    registers = vcpu.registers
    value = vcpu.tsc() if index == x86.MSR_TSC else vcpu.msrs.read(index)
    if value is None:
        done, value = vcpu.ask(MsrRead(index))
        if not done:
            return False
        if value is None:
            raise GuestGp
    registers.set_gpr(RAX, value & _M32)
    registers.set_gpr(RDX, value >> 32 & _M32)
    return True


def _write_msr(vcpu: EmulatorVcpu, index: int) -> bool:
    registers = vcpu.registers
    value = registers.gpr(RDX) << 32 & _M32 << 32 | registers.gpr(RAX) & _M32
    if index == x86.MSR_EFER:
        vcpu.set_efer(check_efer(value, registers.efer, registers.cr(0)))
    elif index == x86.MSR_TSC:
        vcpu.set_tsc(value)
    elif not vcpu.msrs.write(index, value):
        done, answer = vcpu.ask(MsrWrite(index, value))
        if done and answer is None:
            raise GuestGp
        return done
    return True


def _write_cr(vcpu: EmulatorVcpu) -> None:
    """MOV to CR0 or CR4, LMSW, CLTS: the instructions of these two intercepts."""
    registers = vcpu.registers
    instruction = _instruction(vcpu)
    code = instruction.code
    length = instruction.prefixes + 3
    try:
        if code[:2] == b"\x0f\x06":
            length -= 1
            control.write_cr0(vcpu.processor.handle, registers, registers.cr(0) & ~x86.CR0_TS)
        elif code[:2] == b"\x0f\x01":
            if code[2] < 0xC0:
                raise Unsupported("LMSW from memory")
            low = registers.gpr(instruction.register) & 0xF
            control.write_cr0(vcpu.processor.handle, registers, registers.cr(0) & ~0xE | low)
        else:
            value = registers.gpr(instruction.register)
            value &= 2**64 - 1 if registers.bits == 64 else _M32
            write = control.write_cr4 if instruction.system_register == 4 else control.write_cr0
            write(vcpu.processor.handle, registers, value)
    except control.Refused:
        vcpu.deliver(fault(x86.GP))
        return
    registers.save()
    vcpu.advance(length)


def _read_cr8(vcpu: EmulatorVcpu) -> None:
    """CR8 is bits 7 to 4 of the local APIC's task priority (SDM vol. 3, 10.8.6.1), and the APIC is the sink's."""
    instruction = _instruction(vcpu)
    done, answer = vcpu.ask(MmioRead(_TASK_PRIORITY, 4))
    if done:
        vcpu.registers.set_gpr(instruction.register, (answer or 0) >> 4 & 0xF)
        vcpu.advance(instruction.prefixes + 3)


def _write_cr8(vcpu: EmulatorVcpu) -> None:
    instruction = _instruction(vcpu)
    value = vcpu.registers.gpr(instruction.register)
    if value >> 4:
        vcpu.deliver(fault(x86.GP))
    elif vcpu.ask(MmioWrite(_TASK_PRIORITY, 4, value << 4))[0]:
        vcpu.advance(instruction.prefixes + 3)


def _write_dr(vcpu: EmulatorVcpu) -> None:
    registers = vcpu.registers
    instruction = _instruction(vcpu)
    value = registers.gpr(instruction.register)
    value &= 2**64 - 1 if registers.bits == 64 else _M32
    try:
        control.write_dr(registers, instruction.system_register, value)
    except control.Refused as refused:
        vcpu.deliver(fault(x86.UD if refused.ud else x86.GP))
        return
    vcpu.advance(instruction.prefixes + 3)


def _syscall(vcpu: EmulatorVcpu) -> None:
    # The library has stepped over the two bytes already.
    after = vcpu.rip
    target = syscall.syscall(vcpu.registers, after)
    if target is None:
        vcpu.rip = after - 2
        vcpu.deliver(fault(x86.UD))
    else:
        vcpu.go(target)


def _sysenter(vcpu: EmulatorVcpu) -> None:
    read = vcpu.processor.handle.read_msr
    msrs = (read(x86.MSR_SYSENTER_CS), read(x86.MSR_SYSENTER_ESP), read(x86.MSR_SYSENTER_EIP))
    target = syscall.sysenter(vcpu.registers, *msrs)
    if target is None:
        vcpu.rip -= 2
        vcpu.deliver(fault(x86.GP))
    else:
        vcpu.go(target)


def _undefined(vcpu: EmulatorVcpu) -> None:
    vcpu.deliver(fault(x86.UD))


def _protection(vcpu: EmulatorVcpu) -> None:
    vcpu.deliver(fault(x86.GP))


def _shutdown(vcpu: EmulatorVcpu) -> None:
    vcpu.shut_down("the processor shut down")


_ACTIONS: dict[int, Callable[[EmulatorVcpu], None]] = {
    STOPPED_AT_SYSCALL: _syscall,
    STOPPED_AT_SYSENTER: _sysenter,
    INTERCEPT + svm.EXIT_SWINT: _interrupt,
    INTERCEPT + svm.EXIT_ICEBP: _icebp,
    INTERCEPT + svm.EXIT_HLT: _halt,
    INTERCEPT + svm.EXIT_MSR: _msr,
    INTERCEPT + svm.EXIT_VMMCALL: _vmmcall,
    INTERCEPT + svm.EXIT_RDTSC: _rdtsc,
    INTERCEPT + svm.EXIT_RDPMC: _protection,
    INTERCEPT + svm.EXIT_SHUTDOWN: _shutdown,
    INTERCEPT + svm.EXIT_WRITE_CR0: _write_cr,
    INTERCEPT + svm.EXIT_WRITE_CR4: _write_cr,
    INTERCEPT + svm.EXIT_READ_CR8: _read_cr8,
    INTERCEPT + svm.EXIT_WRITE_CR8: _write_cr8,
    **{INTERCEPT + svm.EXIT_WRITE_DR0 + index: _write_dr for index in range(8)},
    **{INTERCEPT + code: _undefined for code in (*svm.SVM_INSTRUCTIONS, *svm.HIDDEN_INSTRUCTIONS)},
}
