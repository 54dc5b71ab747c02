# build: is_up.elf 64
#
# Asks 20 000 times whether vCPU 0 is up, between an `a` and a `b` on the console, for bench/hypercall.py. Leaves with 0
# if the answer was yes each time.

        .include "pvh.inc"
        .include "hypercall.inc"
        pvh_entry _start

        .set CALLS, 20000

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        call find_vendor
        mov vendor, %ebp
        mov $CALLS, %edi
        xor %esi, %esi
        mov $'a', %al
        out %al, $DEBUG_PORT
1:      mov $__HYPERVISOR_vcpu_op, %eax
        mov $VCPUOP_is_up, %ebx
        xor %ecx, %ecx
        xor %edx, %edx
        call hypercall
        add %eax, %esi
        dec %edi
        jnz 1b
        mov $'b', %al
        out %al, $DEBUG_PORT
        cmp $CALLS, %esi
        jne 1f
        leave 0
1:      leave 1
