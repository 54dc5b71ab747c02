# build: entry32.elf 32 entry.ld
# build: entry64.elf 64 entry.ld
#
# Dumps the state the ABI promises at the entry point (xen: docs/misc/pvh.pandoc), one `name=value` a line, in hex, then
# switches itself to long mode and dumps again: the same entry code serves as ELF32 and as ELF64, because the ABI lets the
# guest choose its width. tests/entry/expect.py computes what every line must be.
#
# Selectors are null at the entry, so LAR and LSL say nothing about the hidden parts. They are shown by what they do:
#   base      what a known label holds when read through the segment
#   limit     no fault on the last doubleword of 4 GiB
#   CS.D      how long the processor takes an instruction to be;  SS.B  whether a push counts in ESP or in SP
#   rights    data segments are written through, CS is read through
#   TR        from CPL 3: base by where the inner stack pointer comes from, limit by where the I/O bitmap ends
# The busy bit of TR and the null descriptors of FS, GS and LDTR cannot be seen from inside.
#
# Words on the command line:  quick  leaves CPL 3 out.

        .include "pvh.inc"
        .include "print.inc"
        .include "start_info.inc"
        pvh_entry _start

        .set CS32, 0x08
        .set DS32, 0x10
        .set CS64, 0x18
        .set CS3, 0x23          # ring 3
        .set DS3, 0x2b
        .set RING3_STACK, 0x8000        # physical; in the RAM below the kernel, like the TSS at 0
        .set RING0_STACK, 0x9000
        .set MARK, 0x5045454b

        .text
        .code32
        .globl _start
_start: mov %eax, gprs
        mov %ecx, gprs + 4
        mov %edx, gprs + 8
        mov %ebx, gprs + 12
        mov %esp, gprs + 16
        mov %ebp, gprs + 20
        mov %esi, gprs + 24
        mov %edi, gprs + 28
        mov $stack_top, %esp
        pushfl
        popl flags
        cld
        call 1f
1:      pop %ecx
        sub $1b - _start, %ecx

        say "stage=entry\n"
        .macro gpr name, index
        mov gprs + 4 * \index, %eax
        show "\name="
        .endm
        gpr "eax", 0
        gpr "ecx", 1
        gpr "edx", 2
        gpr "ebx", 3
        gpr "esp", 4
        gpr "ebp", 5
        gpr "esi", 6
        gpr "edi", 7
        mov %ecx, %eax
        show "eip="
        mov flags, %eax
        show "eflags="

        .irp register, cr0, cr2, cr3, cr4, dr6, dr7
        mov %\register, %eax
        show "\register="
        .endr
        .macro msr name, number
        mov $\number, %ecx
        rdmsr
        call show_edx_eax_as
        .asciz "\name="
        .endm
        msr "efer", 0xc0000080
        msr "mtrr_def_type", 0x2ff

        sgdt table
        call show_table_as
        .asciz "gdtr="
        sidt table
        call show_table_as
        .asciz "idtr="

        .irp segment, cs, ds, es, ss, fs, gs
        mov %\segment, %eax
        show "\segment="
        .endr
        xor %eax, %eax
        sldt %ax
        show "ldtr="
        xor %eax, %eax
        str %ax
        show "tr="

        # Hidden parts. Reading a label through each segment, and writing it through the data segments.
        mov %cs:mark, %eax
        show "cs.base.read="
        .irp segment, ds, es, ss
        movl $MARK + 1, %\segment:scratch
        mov scratch, %eax
        show "\segment\().base.write="
        movl $0, scratch
        .endr

        # In 16-bit code `mov $1, %ax; inc %ax; nop`, in 32-bit code one instruction that leaves 1 in AX.
        .byte 0xb8, 0x01, 0x00, 0x40, 0x90
        movzwl %ax, %eax
        show "cs.d="
        # The stack's top has its low 16 bits clear: a push that counts in SP alone would leave ESP 64 KiB higher.
        mov %esp, %ebp
        mov $stack_top, %esp
        push %eax
        mov %esp, %eax
        sub $stack_top, %eax
        mov %ebp, %esp
        show "ss.b="

        # From here on the guest has its own GDT and IDT; CS and the rest still are as the builder left them, until `reload`.
        call make_tables32
        mov %esp, %ebp
        .irp segment, cs, ds, es, ss
        mov $1f, %edi
        xor %eax, %eax
        mov %\segment:0xfffffffc, %ecx
        not %eax
1:      show "\segment\().limit="
        .endr

        # TR. It keeps its base, limit and type, for nothing loads it.
        ljmp $CS32, $reload
reload: mov $DS32, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov gprs + 12, %ebx
        call asked_quick
        je 1f
        call tr_from_ring3
1:      mov gprs + 12, %ebx
        call dump_start_info

        # Long mode, by identity tables over the first 5 GiB. CR3 is physical whatever DS may be: a second proof of DS.base.
        say "stage=long\n"
        call make_page_tables
        mov %cr4, %eax
        or $1 << 5, %eax                # PAE
        mov %eax, %cr4
        mov $pml4, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx
        rdmsr
        or $1 << 8, %eax                # LME
        wrmsr
        mov %cr0, %eax
        or $1 << 31, %eax               # PG
        mov %eax, %cr0
        ljmp $CS64, $long

        .code64
long:   xor %eax, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $stack_top, %esp
        mov %cr0, %rax
        show "cr0="
        mov %cr4, %rax
        show "cr4="
        mov $0xc0000080, %ecx
        rdmsr
        show "efer="
        .irp register, r8, r9, r10, r11, r12, r13, r14, r15
        mov %\register, %rax
        shr $32, %rax
        say "\register="
        call hex32
        mov %\register, %rax
        call hex32
        call newline
        .endr
        mov $-1, %rax                   # 64 bits wide, or not
        shr $32, %rax
        show "rax.high="
        mov $gprs + 12, %eax
        mov (%rax), %ebx
        call dump_start_info

        # RAM at 4 GiB, if the memory map has it.
        mov $1 << 32, %rax
        mov 48(%rbx), %ecx
        mov 40(%rbx), %rdi
        cmpl $1, 4(%rbx)
        jne 3f
        jecxz 3f
1:      cmp %rax, (%rdi)
        je 2f
        add $24, %rdi
        loop 1b
        jmp 3f
2:      movl $MARK, (%rax)
        mov (%rax), %eax
        show "ram.4g.write="
3:      say "stage=end\n"
        leave 0

        .code32
# Print what follows the call up to its NUL, then EDX:EAX.
show_edx_eax_as:
        pop %esi
        push %eax
        push %edx
        call puts
        pop %eax
        call hex32
        pop %eax
        call hex32
        call newline
        jmp *%esi

# Print what follows the call up to its NUL, then base and limit of the table register just stored.
show_table_as:
        pop %esi
        call puts
        push %esi
        mov table + 2, %eax
        call hex32
        movzwl table, %eax
        show "/"
        pop %esi
        jmp *%esi

# ZF = the command line has `quick` in it.
asked_quick:
        call si_layout
        call si_cmdline
        mov %eax, %esi
        test %eax, %eax
        jz 2f
1:      cmpb $0, (%esi)
        je 2f
        cmpl $0x63697571, (%esi)        # "quic"
        je 3f
        add $1, %esi
        jmp 1b
2:      cmp $1, %eax                    # neither address 0 nor a pointer is 1: ZF clear
3:      ret

# Load a GDT and an IDT: exceptions go to `faulted`, INT 0x80 (from any ring) to `called`.
make_tables32:
        mov $idt, %edi
        mov $32, %ecx
        mov $faulted, %eax
        mov $0x8e00, %edx
1:      call gate
        loop 1b
        mov $idt + 0x80 * 8, %edi
        mov $called, %eax
        mov $0xee00, %edx
        call gate
        lgdt gdt_pointer
        lidt idt_pointer
        ret

# A gate at EDI for EAX, of the type in EDX; moves EDI on.
gate:   push %eax
        mov %ax, (%edi)
        movw $CS32, 2(%edi)
        xor %ax, %ax
        or %edx, %eax
        mov %eax, 4(%edi)
        add $8, %edi
        pop %eax
        ret

# Interrupts end here: go on at EDI with the stack of EBP, in ring 0. EAX = 1 for INT 0x80, 0 for an exception;
# ECX = the stack pointer the processor came with. No IRET: KVM without hardware fails at it.
called: mov $1, %eax
        jmp 1f
faulted:
        xor %eax, %eax
1:      mov %esp, %ecx
        mov %ebp, %esp
        jmp *%edi

# What TR holds. Its TSS must be at physical 0, which is free RAM: the inner stack pointer is at 4, the I/O bitmap's offset
# in the word at 0x66. IN from 0xe9 at CPL 3 reads the word at offset + 0xe9 / 8: with offset 0x49 that is the last word
# inside a limit of 0x67, with 0x4a one byte is outside, and #GP follows. (0x49 and 0x4a leave bit 1 of the low byte or,
# behind the limit, of a zero, clear: that is `allowed`.)
tr_from_ring3:
        movl $RING0_STACK, 4
        movl $DS32, 8
        mov $just_call, %edx
        call ring3
        mov %ecx, %eax
        sub $RING0_STACK, %eax
        show "tr.esp0="
        movw $0x49, 0x66
        mov $input, %edx
        call ring3
        show "tr.io.inside="
        movw $0x4a, 0x66
        mov $input, %edx
        call ring3
        show "tr.io.outside="
        ret

# Run the code at EDX in ring 3 until it is back by INT 0x80 or an exception; EAX and ECX as `called` says.
ring3:  mov $1f, %edi
        mov %esp, %ebp
        push $DS3
        push $RING3_STACK
        push $CS3
        push %edx
        lret
1:      mov $DS32, %edx
        mov %edx, %ds
        mov %edx, %es
        ret

input:  in $DEBUG_PORT, %al
just_call:
        int $0x80

# Identity tables for long mode: 2 MiB pages over 5 GiB, present and writable.
make_page_tables:
        movl $pdpt + 3, pml4
        mov $pdpt, %edi
        mov $directories + 3, %eax
        mov $5, %ecx
1:      mov %eax, (%edi)
        add $4096, %eax
        add $8, %edi
        loop 1b
        mov $directories, %edi
        mov $0x83, %eax
        xor %edx, %edx
        mov $5 * 512, %ecx
1:      mov %eax, (%edi)
        mov %edx, 4(%edi)
        add $0x200000, %eax
        adc $0, %edx
        add $8, %edi
        loop 1b
        ret

        .data
        .balign 8
mark:   .long MARK
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # CS32
        .quad 0x00cf93000000ffff        # DS32
        .quad 0x00af9b000000ffff        # CS64
        .quad 0x00cffb000000ffff        # CS3
        .quad 0x00cff3000000ffff        # DS3
gdt_pointer:
        .word . - gdt - 1
        .long gdt
idt_pointer:
        .word 0x81 * 8 - 1
        .long idt

        .bss
        .balign 4096
pml4:   .skip 4096
pdpt:   .skip 4096
directories:
        .skip 5 * 4096
idt:    .skip 0x81 * 8
gprs:   .skip 8 * 4
flags:  .skip 4
scratch:
        .skip 4
table:  .skip 8
