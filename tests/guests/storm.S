# build: storm.elf 64
#
# Two vCPUs bring a third up and down, 10 000 times each, at once. Every call must succeed, and afterwards the third must
# be in the state of the last call. Then all sleep for a second (10 ns a count on Xen's local APIC), and it powers off.
# Needs 3 vCPUs.

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "modes.inc"
        .include "contexts.inc"
        .include "lapic.inc"
        pvh_entry _start

        .set PAIRS, 10000
        .set OTHER, 1                   # the BSP's companion
        .set TOSSED, 2                  # who is brought up and down
        .set PATIENCE, 100000           # yields
        .set VECTOR, 0x40
        .set SECOND, 100000000

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call find_vendor
        call load_tables
        mov $idt + VECTOR * 8, %edi
        mov $timer, %eax
        mov $0x8e00, %edx
        call gate
        mov $list_tossed, %esi
        mov $TOSSED, %ecx
        call start
        mov $list_other, %esi
        mov $OTHER, %ecx
        call start
        mov $VCPUOP_up, %ebx
        xor %edx, %edx
        call vcpu_op
        incl go
        mov $failures, %edi
        call toss
        tell "storm.failures=", failures

        mov $PATIENCE, %edi             # until the other has done its share, and is down
1:      call yield
        mov $VCPUOP_is_up, %ebx
        mov $OTHER, %ecx
        call vcpu_op
        test %eax, %eax
        jz 2f
        dec %edi
        jnz 1b
2:      tell "\nstorm.other-done=", done
        tell "\nstorm.other-failures=", other_failures

        say "\nstorm.last-failure="
        mov last_failure, %eax
        call hex32
        mov $VCPUOP_up, %ebx
        call toss_once
        tell "\nstorm.up=", result
        mov $VCPUOP_is_up, %ebx
        call toss_once
        tell "\nstorm.is_up=", result
        call watch
        tell "\nstorm.runs=", runs
        mov $VCPUOP_down, %ebx
        call toss_once
        tell "\nstorm.down=", result
        mov $VCPUOP_is_up, %ebx
        call toss_once
        tell "\nstorm.is_up=", result
        call watch
        tell "\nstorm.runs=", runs

        say "\nstorm.idle\n"
        movl $SVR_ON, LAPIC + LAPIC_SVR
        movl $VECTOR, LAPIC + LAPIC_TIMER
        movl $0xb, LAPIC + LAPIC_DIVIDE # by 1
        movl $SECOND, LAPIC + LAPIC_INITIAL_COUNT
        mov $ticks, %edi
        mov $1, %eax
        call sleep_until
        say "storm.end\n"
        call poweroff
        say "poweroff refused\n"
        leave 1

timer:  incl ticks
        movl $0, LAPIC + LAPIC_EOI
        jmp woken

# INITIALISE the vCPU in ECX by the list at ESI; a failure ends the run.
start:  push %ecx
        call make_context
        pop %ecx
        mov $VCPUOP_initialise, %ebx
        mov $context, %edx
        call vcpu_op
        test %eax, %eax
        jz 1f
        say "storm needs 3 vCPUs\n"
        leave 1
1:      ret

# Call EBX for the vCPU that is tossed; `result` = EAX = what came back.
toss_once:
        mov $TOSSED, %ecx
        xor %edx, %edx
        call vcpu_op
        mov %eax, result
        ret

# Up and down; count at EDI what fails.
toss:   mov $PAIRS, %esi
        mov $TOSSED, %ecx
        xor %edx, %edx
1:      mov $VCPUOP_up, %ebx
        call vcpu_op
        test %eax, %eax
        jz 2f
        incl (%edi)
        mov %eax, last_failure
2:      mov $VCPUOP_down, %ebx
        call vcpu_op
        test %eax, %eax
        jz 3f
        incl (%edi)
        mov %eax, last_failure
3:      dec %esi
        jnz 1b
        ret

# `runs` = whether the tossed vCPU counts. A `down` need not be complete when it returns.
watch:  mov $100, %edi
1:      call yield
        dec %edi
        jnz 1b
        mov spins, %eax
        mov $1000, %edi
1:      call yield
        cmp spins, %eax
        jne 2f
        dec %edi
        jnz 1b
2:      mov $0, %ecx
        cmp spins, %eax
        setne %cl
        mov %ecx, runs
        ret

# The companion.
other:  mov $other_stack, %esp
1:      pause
        cmpl $0, go
        je 1b
        mov $other_failures, %edi
        call toss
        incl done
2:      mov $VCPUOP_down, %ebx
        mov $OTHER, %ecx
        xor %edx, %edx
        call vcpu_op
        jmp 2b

# The tossed one.
tossed: incl spins
        pause
        jmp tossed

        .data
list_other:
        changes BASE32, EIP, other
list_tossed:
        changes BASE32, EIP, tossed

        .bss
        .balign 4
go:     .skip 4
done:   .skip 4
failures:
        .skip 4
other_failures:
        .skip 4
last_failure:
        .skip 4
result: .skip 4
runs:   .skip 4
spins:  .skip 4
ticks:  .skip 4
        .skip 256
other_stack:
