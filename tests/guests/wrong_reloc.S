# A deliberately wrong kernel, and its twin: PHYS32_RELOC says that it may be put elsewhere, and it is not made for that
# (see wrong.inc).
        .include "pvh.inc"
        .include "wrong.inc"
        pvh_entry wrong_reloc
        elfnote 19, .long 0x1000, 0x100000, 0x10000000         # XEN_ELFNOTE_PHYS32_RELOC: align, min, max

        kernel wrong_reloc
        culprit reloc
        cmpl $MAGIC, mark
        jne give_up
        jmp done
        kernel right_reloc
        mov (%ebx), %eax                # as Linux does: the stack is 4 bytes of start_info, put back
        lea 4(%ebx), %esp
        call 1f
1:      pop %ebp
        mov %eax, (%ebx)
        cmpl $MAGIC, mark - 1b(%ebp)
        fail_if ne
        jmp done
mark:   .long MAGIC
