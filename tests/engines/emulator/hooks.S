# The emulator's machine code; engines/emulator/native.py holds the bytes. System V x86-64 calling convention.
# Control block: 0 mode, 4 budget, 8 index, 12 eflags, 16 uc_emu_stop, 24 uc_reg_read, 32 IN callback, 40 OUT callback,
# 48 leave, 56 MSR record of 16 bytes, 72 uc_vmem_translate, 80 code callback, 88 bits of code, 96 how many, 104 free,
# 112 trail of 64 addresses.
.code64

# void block(handle %rdi, address %rsi, size %edx, block %rcx)
block:  mov 8(%rcx), %eax
        mov %rsi, 112(%rcx, %rax, 8)
        inc %eax
        and $63, %eax
        mov %eax, 8(%rcx)
        decl 4(%rcx)
        js stop
        mov (%rcx), %eax
        test %eax, %eax
        jnz asked
go_on:  ret
asked:  cmp $2, %eax                    # WINDOW
        jne stop
        push %rdi
        push %rcx
        push %rcx
        lea 12(%rcx), %rdx
        mov $25, %esi                   # UC_X86_REG_EFLAGS
        call *24(%rcx)
        pop %rcx
        pop %rcx
        pop %rdi
        testb $2, 13(%rcx)              # IF
        jz go_on
stop:   jmp *16(%rcx)

# uint32_t in(handle %rdi, port %esi, size %edx, block %rcx)
        .balign 64, 0xcc
in:     push %rbx
        push %rbp
        push %rax
        mov %rcx, %rbx
        mov %rdi, %rbp
        call *32(%rcx)
        jmp done

# void out(handle %rdi, port %esi, size %edx, value %ecx, block %r8)
        .balign 64, 0xcc
out:    push %rbx
        push %rbp
        push %rax
        mov %r8, %rbx
        mov %rdi, %rbp
        call *40(%r8)
done:   cmpl $0, 48(%rbx)
        je back
        movl $0, 48(%rbx)
        mov %rbp, %rdi
        mov $248, %esi                  # UC_X86_REG_MSR: intercepted, so it does not return
        lea 56(%rbx), %rdx
        call *24(%rbx)
back:   pop %rcx
        pop %rbp
        pop %rbx
        ret

# void made(handle %rdi, block made %rsi, block before %rdx, block %rcx): the first and last byte's 64 KiB are looked up
        .balign 64, 0xcc
made:   push %rbx
        push %rbp
        push %r12
        push %r13
        sub $24, %rsp
        mov %rdi, %rbp
        mov %rcx, %rbx
        mov (%rsi), %r12                # pc
        movzwl 10(%rsi), %r13d          # size
        lea -1(%r12, %r13), %r13
each:   movq $-1, (%rsp)                # said where no translation is found
        mov %rbp, %rdi
        mov %r12, %rsi
        mov $4, %edx                    # UC_PROT_EXEC
        mov %rsp, %rcx
        call *72(%rbx)
        mov (%rsp), %rdi
        test %eax, %eax
        jnz tell
        mov %rdi, %rax
        shr $16, %rax
        cmp 96(%rbx), %rax
        jae known
        mov 88(%rbx), %rdx
        bt %rax, (%rdx)
        jc known
tell:   call *80(%rbx)
known:  cmp %r13, %r12
        mov %r13, %r12
        jne each
        add $24, %rsp
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret
