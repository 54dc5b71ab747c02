# The smallest useful PVH guest: one line on the debug console, then status 0.
        .include "pvh.inc"
        pvh_entry _start
        .code32
        .globl _start
_start: mov $message, %esi
        mov $DEBUG_PORT, %dx
1:      lodsb
        test %al, %al
        jz 2f
        out %al, (%dx)
        jmp 1b
2:      leave 0
message:
        .asciz "Hello from PVH\n"
