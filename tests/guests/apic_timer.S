# build: apic_timer.elf 32
# The local APIC's timer, 0.4 s: says S when it is started and T at each interrupt. The command line is two letters: o has
# one interrupt end the run, n goes on behind a one-shot; k counts at KVM's 1 GHz, e at our own 100 MHz.

        .include "pvh.inc"
        pvh_entry _start

        .set APIC, 0xfee00000                   # Intel SDM vol. 3, chapter 12
        .set EOI, APIC + 0xb0
        .set SPURIOUS, APIC + 0xf0
        .set LVT_TIMER, APIC + 0x320
        .set INITIAL_COUNT, APIC + 0x380
        .set DIVIDE, APIC + 0x3e0
        .set VECTOR, 0x40

        .text
        .code32
        .globl _start
_start: mov 24(%ebx), %esi                      # cmdline_paddr
        mov (%esi), %bx
        mov $stack_top, %esp
        cld
        mov $tick, %eax
        mov %ax, gate
        shr $16, %eax
        mov %ax, gate + 6
        lgdt gdtr
        ljmp $8, $1f
1:      mov $16, %eax
        mov %eax, %ds
        mov %eax, %ss
        lidt idtr
        movl $0x1ff, SPURIOUS                   # on
        movl $0xb, DIVIDE                       # by 1
        movl $VECTOR, LVT_TIMER
        mov $40000000, %eax
        cmp $'k', %bh
        jne 2f
        imul $10, %eax
2:      mov %eax, INITIAL_COUNT
        mov $'S', %al
        out %al, $0xe9
wait:   mov $stack_top, %esp                    # nothing returns: not every KVM has IRET here
        sti
3:      pause
        jmp 3b

tick:   mov $'T', %al
        out %al, $0xe9
        movl $0, EOI
        cmp $'n', %bl
        je wait
        xor %al, %al
        out %al, $0xf4
        ud2

        .data
        .balign 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .short 23
        .long gdt
idtr:   .short (VECTOR + 1) * 8 - 1
        .long idt
        .balign 8
idt:    .skip VECTOR * 8
gate:   .short 0, 8, 0x8e00, 0
