# build: anycall.elf 64 anycall.ld
#
# Makes the hypercalls that the host put into memory before the start (tests/fuzz/run_any_calls.py), from flat 32-bit code
# or from 64-bit code, and keeps what each gave. Everything it needs is above 24 MiB: calls that take frames away, fill
# memory or register areas do so below, or in what is not there.
#
# The local APIC's timer ends what sleeps; whatever vector a call has Xen interrupt us with, it is only acknowledged.

        .include "pvh.inc"
        .include "hypercall.inc"
        .include "lapic.inc"
        .include "print.inc"
        pvh_entry _start

        .set CONTROL, 0x1700000         # calls to make, 1 for 64-bit code, calls made
        .set MADE, CONTROL + 8
        .set CALLS, 0x1800000
        .set CALL, 256                  # number, 5 arguments, where to poke, result; 64 bytes each for the next three
        .set CALL_POKE, 48
        .set CALL_RESULT, 56
        .set CALL_BYTES, 64
        .set ARG, 0x8000
        .set BUFFER, 0x9000
        .set PML4, 0x1e00000            # 4 GiB to itself, in pages of 2 MiB; the host knows the address
        .set PDPT, PML4 + 0x1000
        .set DIRECTORIES, PML4 + 0x2000
        .set CS32, 8
        .set DS32, 16
        .set CS64, 24
        .set TIMER, 0x50
        .set PERIOD, 2000000
        .set EFER, 0xc0000080

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call find_vendor
        lgdt gdt_pointer
        ljmp $CS32, $1f
1:      mov $DS32, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        movl $CALLS, call_at
        mov $handler32, %eax
        mov $8, %ecx
        mov $CS32, %edx
        cmpl $0, CONTROL + 4
        je 1f
        mov $handler64, %eax
        mov $16, %ecx
        mov $CS64, %edx
1:      call make_idt
        movl $SVR_ON, LAPIC + LAPIC_SVR
        movl $11, LAPIC + LAPIC_DIVIDE
        movl $TIMER | 1 << 17, LAPIC + LAPIC_TIMER
        movl $PERIOD, LAPIC + LAPIC_INITIAL_COUNT
        cmpl $0, CONTROL + 4
        jne enter_long
        lidt idt_pointer
        sti

next32: mov MADE, %eax
        cmp CONTROL, %eax
        jae finish
        mov call_at, %ebp
        lea CALL_BYTES(%ebp), %esi
        mov $ARG, %edi
        mov $16, %ecx
        rep movsl
        mov $BUFFER, %edi
        mov $16, %ecx
        rep movsl
        mov CALL_POKE(%ebp), %edi
        test %edi, %edi
        jz 1f
        mov $16, %ecx
        rep movsl
1:      mov (%ebp), %eax
        mov 8(%ebp), %ebx
        mov 16(%ebp), %ecx
        mov 24(%ebp), %edx
        mov 32(%ebp), %esi
        mov 40(%ebp), %edi
        mov vendor, %ebp
        call hypercall
        mov call_at, %ebp
        mov %eax, CALL_RESULT(%ebp)
        movl $0, CALL_RESULT + 4(%ebp)
        addl $CALL, call_at
        incl MADE
        jmp next32
finish: leave 0

# Interrupts and NMIs. Not IRET: a KVM without hardware below fails at it.
handler32:
        movl $0, LAPIC + LAPIC_EOI
        push 8(%esp)
        popf
        lret $4

# Gates to EAX, ECX bytes each, code segment EDX. Exceptions have none, but NMI: one is the end of the run.
make_idt:
        mov $idt, %edi
        add %ecx, %edi
        add %ecx, %edi
        call gate
        mov $idt, %edi
        mov %ecx, %esi
        shl $4, %esi
        add %esi, %edi
        mov $256 - 16, %esi
1:      call gate
        add %ecx, %edi
        dec %esi
        jnz 1b
        ret
gate:   mov %ax, (%edi)
        mov %dx, 2(%edi)
        movw $0x8e00, 4(%edi)
        push %eax
        shr $16, %eax
        mov %ax, 6(%edi)
        pop %eax
        ret

enter_long:
        mov $PML4, %edi
        mov $6 * 1024, %ecx
        xor %eax, %eax
        rep stosl
        mov $0x83, %eax
        mov $DIRECTORIES, %edi
        mov $2048, %ecx
1:      mov %eax, (%edi)
        add $1 << 21, %eax
        add $8, %edi
        loop 1b
        mov $DIRECTORIES + 3, %eax
        mov $PDPT, %edi
        mov $4, %ecx
1:      mov %eax, (%edi)
        add $4096, %eax
        add $8, %edi
        loop 1b
        movl $PDPT + 3, PML4
        mov $1 << 5, %eax               # CR4.PAE
        mov %eax, %cr4
        mov $PML4, %eax
        mov %eax, %cr3
        mov $EFER, %ecx
        rdmsr
        or $1 << 8, %eax                # LME
        wrmsr
        mov %cr0, %eax
        or $1 << 31, %eax
        mov %eax, %cr0
        ljmp $CS64, $1f
        .code64
1:      lidt idt_pointer
        sti

next64: mov MADE, %eax
        cmp CONTROL, %eax
        jae 2f
        mov call_at, %ebp
        lea CALL_BYTES(%rbp), %rsi
        mov $ARG, %edi
        mov $8, %ecx
        rep movsq
        mov $BUFFER, %edi
        mov $8, %ecx
        rep movsq
        mov CALL_POKE(%rbp), %rdi
        test %rdi, %rdi
        jz 1f
        mov $8, %ecx
        rep movsq
1:      mov (%rbp), %rax
        mov 8(%rbp), %rdi
        mov 16(%rbp), %rsi
        mov 24(%rbp), %rdx
        mov 32(%rbp), %r10
        mov 40(%rbp), %r8
        mov vendor, %ebp
        call hypercall
        mov call_at, %ebp
        mov %rax, CALL_RESULT(%rbp)
        addl $CALL, call_at
        incl MADE
        jmp next64
2:      leave 0

# As vcpufuzz's nmi64: RIP goes to the interrupted stack, which the processor aligned its frame below.
handler64:
        push %rax
        push %rcx
        mov $LAPIC, %eax
        movl $0, LAPIC_EOI(%rax)
        mov 40(%rsp), %rax
        mov 16(%rsp), %rcx
        sub $8, %rax
        mov %rcx, (%rax)
        mov %rax, 40(%rsp)
        push 32(%rsp)
        popf
        pop %rcx
        pop %rax
        mov 24(%rsp), %rsp
        ret

        .data
        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # CS32
        .quad 0x00cf93000000ffff        # DS32
        .quad 0x00af9b000000ffff        # CS64
gdt_pointer:
        .word . - gdt - 1
        .long gdt
        .balign 8
idt_pointer:
        .word 256 * 16 - 1
        .quad idt

        .bss
        .balign 16
idt:    .skip 256 * 16
call_at:
        .skip 8
