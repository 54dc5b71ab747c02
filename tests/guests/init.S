# build: ../../src/pvh/demo/init 64 init.ld
# /init of the demo's initramfs, a Linux program: says hello from user space and powers the machine off.

        .set    SYS_write, 1
        .set    SYS_sync, 162
        .set    SYS_reboot, 169
        .set    LINUX_REBOOT_MAGIC1, 0xfee1dead
        .set    LINUX_REBOOT_MAGIC2, 672274793
        .set    LINUX_REBOOT_CMD_POWER_OFF, 0x4321fedc

        .globl  _start
_start: mov     $SYS_write, %eax
        mov     $1, %edi
        lea     text(%rip), %rsi
        mov     $text_end - text, %edx
        syscall
        mov     $SYS_sync, %eax
        syscall
        mov     $SYS_reboot, %eax
        mov     $LINUX_REBOOT_MAGIC1, %edi
        mov     $LINUX_REBOOT_MAGIC2, %esi
        mov     $LINUX_REBOOT_CMD_POWER_OFF, %edx
        syscall
        ud2                             # init must not return

text:   .ascii  "\nHello from user space: this is /init, on a kernel that pvh booted. Powering off.\n"
text_end:
