# Deliberately wrong kernels, and their twins: clauses of the processor's state (see wrong.inc).
        .include "pvh.inc"
        .include "wrong.inc"
        pvh_entry wrong_entry_eax

# entry.eax: looks for Multiboot's magic.
        kernel wrong_entry_eax
        culprit entry_eax
        cmp $0x2badb002, %eax
        je give_up
        jmp done
        kernel right_entry_eax
        mov (%ebx), %eax
        cmp $MAGIC, %eax
        fail_if ne
        jmp done

# entry.ecx: takes it for a count.
        kernel wrong_entry_ecx
        culprit entry_ecx
        jecxz done
        jmp done
        kernel right_entry_ecx
        xor %ecx, %ecx
        jecxz done
        jmp give_up

# entry.edx: sets the low byte of a port's number only.
        kernel wrong_entry_edx
        mov $DEBUG_PORT, %dl
        mov $'.', %al
        culprit entry_edx
        out %al, (%dx)
        jmp done
        kernel right_entry_edx
        mov $DEBUG_PORT, %dx
        mov $'.', %al
        out %al, (%dx)
        jmp done

# entry.esi: Linux's 32-bit boot protocol has boot_params there.
        kernel wrong_entry_esi
        culprit entry_esi
        mov 0x1f1(%esi), %eax
        jmp done
        kernel right_entry_esi
        mov %ebx, %esi
        mov (%esi), %eax
        jmp done

# entry.edi: stores through it.
        kernel wrong_entry_edi
        cld
        xor %eax, %eax
        culprit entry_edi
        stosl
        jmp done
        kernel right_entry_edi
        cld
        xor %eax, %eax
        mov $scratch, %edi
        stosl
        jmp done

# entry.ebp: takes a frame for granted.
        kernel wrong_entry_ebp
        mov $scratch + 4096, %esp
        push %ebp                       # saves it, which is allowed
        culprit entry_ebp
        mov 8(%ebp), %eax
        jmp done
        kernel right_entry_ebp
        mov $scratch + 4096, %esp
        push %ebp
        mov %esp, %ebp
        mov (%ebp), %eax
        pop %ebp
        jmp done

# entry.esp: there is no stack.
        kernel wrong_entry_esp
        culprit entry_esp
        push $0
        jmp done
        kernel right_entry_esp
        mov %esp, scratch               # saves it, which is allowed
        mov $scratch + 4096, %esp
        push $0
        jmp done

# entry.r8-r15: 64-bit code takes R8 for zero; another takes EBX for RBX.
        kernel wrong_entry_r8_r15
        long_mode
        culprit entry_r8_r15
        test %r8, %r8
        jnz give_up64
        jmp done64
        .code32
        kernel wrong_entry_r8_r15__upper
        long_mode
        mov %rbx, %rax
        shr $32, %rax
        culprit entry_r8_r15__upper
        test %eax, %eax
        jnz give_up64
        jmp done64
        .code32
        kernel right_entry_r8_r15
        long_mode
        xor %r8d, %r8d
        test %r8, %r8
        jnz give_up64
        mov %ebx, %ebx
        mov %rbx, %rax
        shr $32, %rax
        jnz give_up64
        jmp done64
give_up64:
        cli
        hlt
done64: leave 0
        .code32

# entry.mode: 64-bit code at the entry, whose first REX prefix is a DEC here.
        kernel wrong_entry_mode
        .code64
        culprit entry_mode
        lea scratch(%rip), %rsp
        leave 0
        .code32
        kernel right_entry_mode
        mov %cr0, %eax
        test $1, %al
        fail_if z
        jmp done

# eflags.df: no CLD before the first string instruction.
        kernel wrong_eflags_df
        mov %ebx, %esi
        culprit eflags_df
        lodsl
        jmp done
        kernel right_eflags_df
        cld
        mov %ebx, %esi
        lodsl
        jmp done

# eflags.status: branches on what nobody computed.
        kernel wrong_eflags_status
        culprit eflags_status
        jc done
        jmp done
        kernel right_eflags_status
        clc
        jc give_up
        jmp done

# eflags.system: IRET with NT switches tasks; ID set does not mean that the kernel could set it.
        kernel wrong_eflags_system
        own_gdt
        mov $scratch + 4096, %esp
        push $2
        push $CS32
        push $done
        culprit eflags_system
        iret
        kernel wrong_eflags_system__id
        mov $scratch + 4096, %esp
        pushf
        pop %eax
        culprit eflags_system__id
        test $1 << 21, %eax
        jz done
        jmp done
        kernel right_eflags_system
        mov $scratch + 4096, %esp
        push $2
        popf
        own_gdt
        push $2
        push $CS32
        push $done
        iret
        kernel right_eflags_system__id          # as the manuals have it: can ID be changed?
        mov $scratch + 4096, %esp
        pushf
        pop %eax
        mov %eax, %ecx
        xor $1 << 21, %eax
        push %eax
        popf
        pushf
        pop %eax
        push %ecx
        popf
        cmp %ecx, %eax
        fail_if e
        jmp done

# cr0: unmasks x87 exceptions, and leaves NE clear: they would come as an interrupt of a PIC that is not there.
        kernel wrong_cr0
        fninit
        culprit cr0
        fldcw control_word
        jmp done
        kernel right_cr0
        mov %cr0, %eax
        or $1 << 5, %eax
        mov %eax, %cr0
        fninit
        fldcw control_word
        jmp done
control_word:
        .word 0x033b                    # zero divide is unmasked

# cr2: takes it for zero.
        kernel wrong_cr2
        mov %cr2, %eax
        culprit cr2
        test %eax, %eax
        jz done
        jmp done
        kernel right_cr2
        xor %eax, %eax
        mov %eax, %cr2
        mov %cr2, %eax
        test %eax, %eax
        fail_if nz
        jmp done

# cr3: enables paging with whatever is there.
        kernel wrong_cr3
        page_tables
        mov $EFER, %ecx
        xor %eax, %eax
        xor %edx, %edx
        wrmsr
        mov $0x80000011, %eax
        culprit cr3
        mov %eax, %cr0
        jmp done
        kernel right_cr3
        mov $directory, %eax            # 32-bit paging, of one page of 4 MiB
        movl $0x83, directory
        mov %eax, %cr3
        mov $1 << 4, %eax               # CR4.PSE
        mov %eax, %cr4
        mov $EFER, %ecx
        xor %eax, %eax
        xor %edx, %edx
        wrmsr
        mov $0x80000011, %eax
        mov %eax, %cr0
        jmp done

# cr4: SSE without OSFXSR.
        kernel wrong_cr4
        culprit cr4
        pxor %xmm0, %xmm0
        jmp done
        kernel right_cr4
        mov $1 << 9, %eax
        mov %eax, %cr4
        pxor %xmm0, %xmm0
        movd %xmm0, %eax
        test %eax, %eax
        fail_if nz
        jmp done

# efer: 32-bit paging, if only LME is clear.
        kernel wrong_efer
        mov $directory, %eax
        movl $0x83, directory
        mov %eax, %cr3
        mov $1 << 4, %eax
        mov %eax, %cr4
        mov $0x80000011, %eax
        culprit efer
        mov %eax, %cr0
        jmp done
        kernel wrong_efer__branch
        mov $EFER, %ecx
        rdmsr
        culprit efer__branch
        test $1 << 8, %eax
        jnz done
        jmp done
        kernel right_efer
        long_mode
        jmp done64
        .code32

# segments.selectors: copies DS's selector, with a GDT of its own.
        kernel wrong_segments_selectors
        lgdt gdt_pointer
        mov %ds, %eax
        culprit segments_selectors
        mov %eax, %es
        jmp done
        kernel right_segments_selectors
        own_gdt
        mov %ds, %eax
        mov %eax, %es
        jmp done

# segments.fs-gs
        kernel wrong_segments_fs_gs
        culprit segments_fs_gs
        mov %fs:0, %eax
        jmp done
        kernel right_segments_fs_gs
        own_gdt
        mov %eax, %fs
        mov %fs:scratch, %eax
        jmp done

# tr: takes the selector for one into its own GDT.
        kernel wrong_tr
        own_gdt
        str %eax
        culprit tr
        test %ax, %ax
        jnz done
        jmp done
        kernel right_tr
        own_gdt
        mov $scratch, %eax
        mov %ax, tss_gdt + 8 + 2
        shr $16, %eax
        mov %al, tss_gdt + 8 + 4
        mov %ah, tss_gdt + 8 + 7
        lgdt tss_pointer
        mov $8, %eax
        ltr %ax
        str %eax
        test %ax, %ax
        fail_if z
        jmp done
        .balign 8
tss_gdt:
        .quad 0
        .quad 0x0000890000000067
tss_pointer:
        .word 15
        .long tss_gdt

# ldtr: a selector into the LDT.
        kernel wrong_ldtr
        own_gdt
        mov $0xc, %eax
        culprit ldtr
        mov %eax, %fs
        jmp done
        kernel right_ldtr
        own_gdt
        xor %eax, %eax
        lldt %ax
        mov %eax, %fs
        jmp done

# gdt: reloads DS from a table that is not there; and saves and restores it, which is no better.
        kernel wrong_gdt
        mov $DS32, %eax
        culprit gdt
        mov %eax, %ds
        jmp done
        kernel wrong_gdt__restored
        mov $scratch + 4096, %esp
        push %ds
        culprit gdt__restored
        pop %ds
        jmp done
        kernel wrong_gdt__far
        culprit gdt__far
        ljmp $CS32, $done
        kernel right_gdt
        own_gdt
        jmp done

# idt: a breakpoint; interrupts on; a fault.
        kernel wrong_idt
        mov $scratch + 4096, %esp
        culprit idt
        int3
        jmp done
        kernel wrong_idt__sti
        culprit idt__sti
        sti
        cli
        jmp done
        kernel wrong_idt__fault
        xor %ecx, %ecx
        culprit idt__fault
        div %ecx
        jmp done
        kernel right_idt
        own_gdt
        mov $scratch + 4096, %esp
        mov $idt + 3 * 8, %edi
        mov $handler, %eax
        mov %ax, (%edi)
        movw $CS32, 2(%edi)
        shr $16, %eax
        mov %ax, 6(%edi)
        movw $0x8e00, 4(%edi)
        lidt idt_pointer
        push $2
        popf
        int3
        jmp done
handler: iret
idt_pointer:
        .word 256 * 8 - 1
        .long idt

# dr: breakpoints that nobody set.
        kernel wrong_dr
        mov %dr7, %eax
        culprit dr
        test $0xff, %eax
        jnz done
        jmp done
        kernel right_dr
        mov $0x400, %eax
        mov %eax, %dr7
        mov %dr7, %eax
        test $0xff, %eax
        fail_if nz
        jmp done

# fpu: a full stack may be there.
        kernel wrong_fpu
        culprit fpu
        fldpi
        jmp done
        kernel right_fpu
        fninit
        fldpi
        fistpl scratch
        cmpl $3, scratch
        fail_if ne
        jmp done

# msr: takes the base of GS for zero.
        kernel wrong_msr
        mov $GS_BASE, %ecx
        rdmsr
        culprit msr
        mov (%eax), %eax
        jmp done
        kernel right_msr
        mov $GS_BASE, %ecx
        mov $scratch, %eax
        xor %edx, %edx
        wrmsr
        rdmsr
        mov (%eax), %eax
        jmp done
