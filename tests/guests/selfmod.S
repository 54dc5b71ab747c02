# build: selfmod.elf 64
#
# The BSP changes code that vCPU 1 is executing, in the two ways that operating systems do it (Intel SDM vol. 3, 9.1.3;
# the first is Linux' text_poke_bp): by INT3, where the other runs on, and by an interrupt that holds it meanwhile. After
# each change the other must execute the new code, and nothing but old or new code before. Needs 2 vCPUs.

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "modes.inc"
        .include "contexts.inc"
        .include "lapic.inc"
        pvh_entry _start

        .set ROUNDS, 100
        .set OTHER, 1
        .set PATIENCE, 100000           # yields
        .set SYNC, 0x50                 # vectors
        .set HOLD, 0x51
        .set MOV_EAX, 0xb8
        .set INT3, 0xcc

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call find_vendor
        call load_tables
        .macro handler vector, routine
        mov $idt + \vector * 8, %edi
        mov $\routine, %eax
        mov $0x8e00, %edx
        call gate
        .endm
        handler 3, at_int3
        handler SYNC, at_sync
        handler HOLD, at_hold
        movl $SVR_ON, LAPIC + LAPIC_SVR

        mov $list, %esi
        call make_context
        mov $OTHER, %ecx
        mov $VCPUOP_initialise, %ebx
        mov $context, %edx
        call vcpu_op
        mov $VCPUOP_up, %ebx
        call vcpu_op
        test %eax, %eax
        jnz cannot
        mov $loops, %edi
        mov $1, %eax
        call wait_for                   # its local APIC is on, and it executes `patched`

        movl $1, round
1:      call change_by_int3
        call executes_round
        incl round
        cmpl $ROUNDS, round
        jbe 1b
        tell "selfmod.int3.wrong=", wrong
        call newline

        movl $0, wrong
1:      call change_while_held
        call executes_round
        incl round
        cmpl $ROUNDS * 2, round
        jbe 1b
        tell "selfmod.ipi.wrong=", wrong
        tell "\nselfmod.torn=", torn
        say "\nselfmod end\n"
        call poweroff
        say "poweroff refused\n"
        leave 1
cannot: say "selfmod cannot start vCPU 1\n"
        leave 1

# INT3 in front, the rest behind it, then the first byte: the other is made to serialise after each.
change_by_int3:
        movb $INT3, patched
        call synchronise
        mov round, %eax
        mov %eax, patched + 1
        call synchronise
        movb $MOV_EAX, patched
        jmp synchronise

# All at once, while an interrupt handler holds the other.
change_while_held:
        mov holds, %eax
        inc %eax
        mov $holds, %edi
        mov $HOLD, %ecx
        call interrupt
        mov round, %eax
        mov %eax, patched + 1
        mov %eax, released
        ret

# Interrupt the other and wait until it has executed CPUID.
synchronise:
        mov syncs, %eax
        inc %eax
        mov $syncs, %edi
        mov $SYNC, %ecx
# Send the other the vector in ECX and wait until (EDI) is EAX.
interrupt:
        movl $OTHER << 25, LAPIC + LAPIC_ICR_HIGH
        mov %ecx, LAPIC + LAPIC_ICR
wait_for:
        mov $PATIENCE, %ecx
1:      cmp %eax, (%edi)
        jae 2f
        call yield
        loop 1b
        say "selfmod: vCPU 1 does not answer\n"
        leave 1
2:      ret

# Once the other has gone round twice more, what it saw last must be this round's code.
executes_round:
        mov loops, %eax
        add $2, %eax
        mov $loops, %edi
        call wait_for
        mov round, %eax
        cmp %eax, seen
        je 1f
        incl wrong
1:      ret

# The other vCPU. What it sees is a round's number, and never goes back.
other:  mov $other_stack, %esp
        call load_registers
        movl $SVR_ON, LAPIC + LAPIC_SVR
        sti
1:      call patched
        cmp seen, %eax
        jae 2f
        incl torn
2:      mov %eax, seen
        incl loops
        jmp 1b

        .balign 16
        .skip 13, 0x90
patched:                                # across a boundary of 16 bytes
        mov $0, %eax
        ret

# The byte that was there is not known: try again, until the other puts one back.
at_int3:
        subl $1, (%esp)
        iret

at_sync:
        pusha
        xor %eax, %eax
        cpuid
        movl $0, LAPIC + LAPIC_EOI
        incl syncs
        popa
        iret

at_hold:
        pusha
        mov released, %eax
        movl $0, LAPIC + LAPIC_EOI
        incl holds
1:      pause
        cmp released, %eax
        je 1b
        xor %eax, %eax
        cpuid
        popa
        iret

        .data
list:   changes BASE32, EIP, other

        .bss
        .balign 4
round:  .skip 4
wrong:  .skip 4
torn:   .skip 4
seen:   .skip 4
loops:  .skip 4
syncs:  .skip 4
holds:  .skip 4
released:
        .skip 4
        .skip 256
other_stack:
