# The SIGBUS handler whose bytes sigbus.py holds; tests/build/test_sigbus.py proves them equal.
# void handler(int signo, siginfo_t *info, void *context); the data page follows the code page.

        .set DATA, 0x1000               # from the code's start
        .set PREVIOUS, DATA             # handler to pass other faults to: 0 SIG_DFL, 1 SIG_IGN
        .set DEFAULT, DATA + 8          # struct kernel_sigaction of zeroes: SIG_DFL
        .set SLOTS, DATA + 64           # {start, end, bitmap} of each guarded range; end 0: free
        .set COUNT, 1024

handler:
        cmpl $2, 8(%rsi)                # si_code BUS_ADRERR: behind the end of the file
        jne pass
        mov 16(%rsi), %rax              # si_addr
        lea handler + SLOTS(%rip), %r9
        mov $COUNT, %ecx
look:   mov (%r9), %r10
        cmp %r10, %rax
        jb next
        cmp 8(%r9), %rax
        jb found
next:   add $24, %r9
        dec %ecx
        jnz look

pass:   mov handler + PREVIOUS(%rip), %rax
        cmp $1, %rax
        ja chain
        jb default
        cmpl $0, 8(%rsi)                # ignored: right for one that was sent, while the kernel kills for a fault
        jg default
        ret
chain:  jmp *%rax

default:
        push %rsi
        mov $13, %eax                   # rt_sigaction(SIGBUS, DEFAULT, NULL, 8)
        mov $7, %edi
        lea handler + DEFAULT(%rip), %rsi
        xor %edx, %edx
        mov $8, %r10d
        syscall
        pop %rsi
        cmpl $0, 8(%rsi)
        jg done                         # the fault comes again by itself
        mov $39, %eax                   # getpid
        syscall
        push %rax
        mov $186, %eax                  # gettid
        syscall
        mov %eax, %esi
        pop %rdi
        mov $7, %edx
        mov $234, %eax                  # tgkill(pid, tid, SIGBUS)
        syscall
done:   ret

# One thread claims a page by its bit and maps it; others fault until it has, lest they wipe what was stored since.
found:  sub %r10, %rax
        shr $12, %rax
        mov 16(%r9), %r9
        lock bts %rax, (%r9)
        jc done
        push %rdi
        push %rsi
        push %rdx
        push %r9
        push %rax
        shl $12, %rax
        lea (%r10, %rax), %rdi
        mov $4096, %esi
        mov $3, %edx                    # PROT_READ | PROT_WRITE
        mov $0x32, %r10d                # MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
        or $-1, %r8
        xor %r9d, %r9d
        mov $9, %eax                    # mmap
        syscall
        mov %rax, %r10
        pop %rax
        pop %r9
        pop %rdx
        pop %rsi
        pop %rdi
        cmp $-4095, %r10
        jb done
        lock btr %rax, (%r9)
        jmp pass
