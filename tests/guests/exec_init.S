# build: ../../src/pvh/cli/exec_init 64 init.ld
# /init of `pvh run --exec`, a Linux program: runs one command, and tells its status by exit port 0xf4.
#
# It gets everything ready, says so to the command port, where a snapshot of the guest may be taken, and then reads from
# that port what is different each time: the time, something random, where input comes from, the command. Input from no
# terminal is not echoed, and makes no signals. The console's output is not processed, so what the command writes is
# what comes out.
#
# It is /sbin/poweroff as well, which the kernel runs when a toolstack asks for it: there is no other init to tell.

        .set    SYS_read, 0
        .set    SYS_write, 1
        .set    SYS_open, 2
        .set    SYS_close, 3
        .set    SYS_ioctl, 16
        .set    SYS_pread64, 17
        .set    SYS_pwrite64, 18
        .set    SYS_dup2, 33
        .set    SYS_getpid, 39
        .set    SYS_fork, 57
        .set    SYS_execve, 59
        .set    SYS_exit, 60
        .set    SYS_wait4, 61
        .set    SYS_setsid, 112
        .set    SYS_mount, 165
        .set    SYS_reboot, 169
        .set    SYS_iopl, 172
        .set    SYS_clock_settime, 227
        .set    LINUX_REBOOT_MAGIC1, 0xfee1dead
        .set    LINUX_REBOOT_MAGIC2, 672274793
        .set    LINUX_REBOOT_CMD_POWER_OFF, 0x4321fedc

        .set    O_RDWR, 2
        .set    TCGETS, 0x5401
        .set    TCSETS, 0x5402
        .set    TCSBRK, 0x5409                  # with argument 1: wait until everything is sent (tcdrain)
        .set    OFLAG, 4                        # in struct termios: c_iflag, c_oflag, c_cflag, c_lflag
        .set    LFLAG, 12
        .set    OPOST, 1
        .set    ISIG, 1
        .set    ECHO, 8
        .set    EXIT_PORT, 0xf4
        .set    READY_PORT, 0xf5
        .set    COMMAND_PORT, 0xf6
        .set    RNDADDENTROPY, 0x40085203
        .set    RNDRESEEDCRNG, 0x5207
        .set    CANNOT_RUN, 127                 # a shell's status for a command that is not there
        .set    COMMAND_ROOM, 1 << 17           # MAX_ARG_STRLEN, with the NUL
        .set    SCRATCH, 64
        .set    TIME, SCRATCH                   # what is read from the port: struct timespec
        .set    RANDOM, TIME + 16               # struct rand_pool_info with 32 bytes
        .set    INPUT, RANDOM + 40              # 32 bits: 0 a terminal's keys, 1 what comes unseen, 2 none
        .set    LENGTH, INPUT + 4               # 32 bits
        .set    COMMAND, LENGTH + 4

        .macro  sys number, a=$0, b=$0, c=$0
        mov     \a, %rdi
        mov     \b, %rsi
        mov     \c, %rdx
        mov     $\number, %eax
        syscall
        .endm

        .macro  mount type, place
        lea     \type(%rip), %rdi
        lea     \place(%rip), %rsi
        mov     %rdi, %rdx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        mov     $SYS_mount, %eax
        syscall
        .endm

        .globl  _start
_start: sys     SYS_getpid
        dec     %rax
        jnz     power_off
        sub     $COMMAND + COMMAND_ROOM, %rsp
        mount   proc, proc_place
        mount   sysfs, sys_place
        mount   devtmpfs, dev_place
        sys     SYS_fork
        mov     %rax, %r13
        test    %rax, %rax
        jz      child

reap:   mov     $-1, %rdi                       # orphans come to init, too
        mov     %rsp, %rsi
        xor     %edx, %edx
        xor     %r10d, %r10d
        mov     $SYS_wait4, %eax
        syscall
        cmp     %rax, %r13
        jne     reap
        mov     (%rsp), %eax                    # wait status: a signal in the low 7 bits, or an exit status above 8
        movzx   %ah, %ebx
        and     $0x7f, %eax
        jz      tell
        lea     128(%rax), %ebx

tell:   sys     SYS_ioctl, $1, $TCSBRK, $1
        mov     $EXIT_PORT, %r15d
        call    out_byte
        lea     untold(%rip), %rsi
        sys     SYS_write, $1, %rsi, $UNTOLD_SIZE
power_off:
        mov     $LINUX_REBOOT_CMD_POWER_OFF, %edx
        sys     SYS_reboot, $LINUX_REBOOT_MAGIC1, $LINUX_REBOOT_MAGIC2, %rdx
        ud2                                     # init must not return

# Write a byte, BL, to the I/O port in R15.
out_byte:
        sys     SYS_iopl, $3
        test    %rax, %rax
        jnz     by_file
        mov     %bl, %al
        mov     %r15d, %edx
        out     %al, %dx
        ret
by_file:                                        # a kernel without iopl
        lea     dev_port(%rip), %rdi
        sys     SYS_open, %rdi, $O_RDWR
        push    %rbx
        mov     %rsp, %rsi
        mov     %r15, %r10
        sys     SYS_pwrite64, %rax, %rsi, $1
        pop     %rbx
        ret

child:  sys     SYS_setsid
        lea     hvc0(%rip), %rdi                # a terminal of its own: /dev/console cannot be one
        sys     SYS_open, %rdi, $O_RDWR
        mov     %rax, %rbx
        test    %rax, %rax
        js      terminal                        # no such device: stay with the kernel's choice
        sys     SYS_dup2, %rbx, $0
        sys     SYS_dup2, %rbx, $1
        sys     SYS_dup2, %rbx, $2

terminal:
        lea     setup(%rip), %rdi               # what there is to do once
        sys     SYS_open, %rdi, $0
        test    %rax, %rax
        js      wait
        sys     SYS_fork
        test    %rax, %rax
        jz      set_up
        xor     %r10d, %r10d
        sys     SYS_wait4, %rax, %rsp, $0
wait:   mov     $COMMAND_PORT, %r15d
        call    out_byte
        lea     TIME(%rsp), %r14
        mov     $COMMAND - TIME, %ebp
        call    in_bytes
        mov     LENGTH(%rsp), %ebp
        call    in_bytes
        movb    $0, (%r14)
        lea     TIME(%rsp), %rsi
        sys     SYS_clock_settime, $0, %rsi     # CLOCK_REALTIME
        lea     random(%rip), %rdi
        sys     SYS_open, %rdi, $O_RDWR
        mov     %rax, %rbx
        lea     RANDOM(%rsp), %r14
        sys     SYS_ioctl, %rbx, $RNDADDENTROPY, %r14
        sys     SYS_ioctl, %rbx, $RNDRESEEDCRNG
        sys     SYS_close, %rbx

        mov     %rsp, %r14
        sys     SYS_ioctl, $0, $TCGETS, %r14
        test    %rax, %rax
        js      command
        andl    $~OPOST, OFLAG(%rsp)
        cmpl    $0, INPUT(%rsp)
        je      set
        andl    $~(ISIG | ECHO), LFLAG(%rsp)
set:    sys     SYS_ioctl, $0, $TCSETS, %r14
        cmpl    $1, INPUT(%rsp)
        jbe     command
        lea     dev_null(%rip), %rdi
        sys     SYS_open, %rdi
        sys     SYS_dup2, %rax

command:
        mov     $READY_PORT, %r15d
        call    out_byte
        sys     SYS_iopl, $0                    # a program that the command starts would have its rights
        lea     COMMAND(%rsp), %r14
        call    become_shell

set_up: lea     dash_e(%rip), %rbx
        lea     setup(%rip), %r14
        call    become_shell_with

# Be a shell with -c and the text at R14; or with the option at RBX and R14.
become_shell:
        lea     dash_c(%rip), %rbx
become_shell_with:
        push    $0                              # pointers cannot stand in the file: no loader relocates it
        lea     term(%rip), %rax
        push    %rax
        lea     home(%rip), %rax
        push    %rax
        lea     path(%rip), %rax
        push    %rax
        mov     %rsp, %rdx
        push    $0
        push    %r14
        push    %rbx
        lea     sh(%rip), %rdi
        push    %rdi
        mov     %rsp, %rsi
        sys     SYS_execve, %rdi, %rsi, %rdx
        lea     no_shell(%rip), %rsi
        sys     SYS_write, $2, %rsi, $NO_SHELL_SIZE
        sys     SYS_exit, $CANNOT_RUN

# Read EBP bytes from the I/O port in R15 to R14, which moves on.
in_bytes:
        sys     SYS_iopl, $3
        test    %rax, %rax
        jnz     in_by_file
        mov     %r15d, %edx
next:   test    %ebp, %ebp
        jz      done
        in      %dx, %al
        mov     %al, (%r14)
        inc     %r14
        dec     %ebp
        jmp     next
in_by_file:
        lea     dev_port(%rip), %rdi
        sys     SYS_open, %rdi, $O_RDWR
        mov     %rax, %r9
        mov     %r15, %r10
next_by_file:
        test    %ebp, %ebp
        jz      done
        sys     SYS_pread64, %r9, %r14, $1
        dec     %rax
        jnz     unheard                         # neither way: a kernel that is locked down
        inc     %r14
        dec     %ebp
        jmp     next_by_file
done:   ret
unheard:
        lea     untold(%rip), %rsi
        sys     SYS_write, $2, %rsi, $UNTOLD_SIZE
        sys     SYS_exit, $CANNOT_RUN

proc:   .asciz  "proc"
sysfs:  .asciz  "sysfs"
devtmpfs:
        .asciz  "devtmpfs"
proc_place:
        .asciz  "/proc"
sys_place:
        .asciz  "/sys"
dev_place:
        .asciz  "/dev"
dev_port:
        .asciz  "/dev/port"
dev_null:
        .asciz  "/dev/null"
hvc0:   .asciz  "/dev/hvc0"
random: .asciz  "/dev/urandom"
setup:  .asciz  "/setup"
sh:     .asciz  "/bin/sh"
dash_c: .asciz  "-c"
dash_e: .asciz  "-e"
path:   .asciz  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
home:   .asciz  "HOME=/"
term:   .asciz  "TERM=linux"
no_shell:
        .ascii  "pvh: this initramfs has no /bin/sh that its kernel can execute\n"
        .set    NO_SHELL_SIZE, . - no_shell
untold: .ascii  "pvh: this kernel lets no program use I/O ports, so it can be told no command, and tell no status\n"
        .set    UNTOLD_SIZE, . - untold
