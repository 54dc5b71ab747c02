# build: kvm_probe.elf 64 kvm.ld
# What a KVM must execute before `--engine auto` trusts it. Linked at 0x1000; check n begins at 0x1000 + 64 n and ends
# with a byte to port 0xf4: 1, it works. pvh.engines.kvm.probe holds the bytes and prepares tables, stack and mode.

        .equ scratch, 0x6000

        .text
        .globl _start
_start:
        .code32                         # 0: iret in 32-bit protected mode, paging off
        pushf
        push %cs
        push $1f
        iret
1:      mov $1, %al
        out %al, $0xf4

        .balign 64, 0xcc
        .code64                         # 1: int3 through the IDT and back
        xor %eax, %eax
        int3
        out %al, $0xf4

        .balign 64, 0xcc                      # 2: cmpxchg16b
        xor %eax, %eax
        xor %edx, %edx
        lock cmpxchg16b scratch
        sete %al
        out %al, $0xf4

        .balign 64, 0xcc                      # 3: xsave and xrstor of x87 and SSE state
        xor %ecx, %ecx
        xor %edx, %edx
        mov $3, %eax
        xsetbv
        xsave64 scratch
        xrstor64 scratch
        mov $1, %al
        out %al, $0xf4

        .balign 64, 0xcc                      # 4: 3000 instructions between two writes
        mov $1, %al
        out %al, $0xf4
        mov $1000, %ecx
1:      incl scratch
        dec %ecx
        jnz 1b
        out %al, $0xf4

        .balign 64, 0xcc                      # the handler of int3
        inc %eax
        iretq
