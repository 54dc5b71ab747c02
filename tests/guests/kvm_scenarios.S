# build: kvm_scenarios.elf 64 kvm.ld
# Small guests for tests of the KVM engine (tests/engines/kvm/scenarios.py): guest n begins at 0x1000 + 256 n, in 32-bit
# protected mode without paging unless it says otherwise. Port 0xe0 takes what a guest found out, port 0xf4 ends it.

        .equ found, 0xe0
        .equ end, 0xf4
        .equ svr, 0xfee000f0            # local APIC: spurious interrupt vector, EOI, interrupt command
        .equ eoi, 0xfee000b0
        .equ icr_low, 0xfee00300
        .equ icr_high, 0xfee00310
        .equ hole, 0xd0000000           # no memory there
        .equ counter, 0x6000

        .macro guest
        .balign 256, 0xcc
        .code32
        .endm

        .text
        .globl _start
_start:
        guest                           # 0: IN and OUT of every size
        mov $0x1234, %dx
        in (%dx), %al
        out %al, (%dx)
        in (%dx), %ax
        out %ax, (%dx)
        in (%dx), %eax
        out %eax, (%dx)
        out %al, $end

        guest                           # 1: OUTS and INS
        mov $0x1234, %dx
        mov $1f, %esi
        mov $3, %ecx
        rep outsb
        mov $counter, %edi
        mov $2, %ecx
        rep insw
        out %al, $end
1:      .ascii "abc"

        guest                           # 2: memory that is not there, 1, 2 and 4 bytes
        mov hole, %eax
        mov %eax, hole + 0x10
        mov hole + 0x20, %al
        mov %al, hole + 0x31
        mov hole + 0x40, %ax
        mov %ax, hole + 0x52
        out %al, $end

        guest                           # 3: Xen's MSR, written and read
        mov $0x40000000, %ecx
        mov $0x5000, %eax
        mov $1, %edx
        wrmsr
        rdmsr
        out %eax, $found
        mov %edx, %eax
        out %eax, $found
        out %al, $end

        guest                           # 4: an MSR that nobody has, and then one that is refused: #GP
        mov $0xdead, %ecx
        rdmsr
        out %eax, $found
        mov $0xbeef, %ecx
        rdmsr
        out %al, $end

        guest                           # 5: the handler of #GP
        mov $13, %al
        out %al, $found
        out %al, $end

        guest                           # 6: hypercalls by VMCALL and VMMCALL
        mov $17, %eax
        mov $1, %ebx
        mov $2, %ecx
        mov $3, %edx
        mov $4, %esi
        mov $5, %edi
        vmcall
        out %eax, $found
        mov $18, %eax
        vmmcall
        out %eax, $found
        mov %ebx, %eax
        out %eax, $found
        out %al, $end

        guest                           # 7: a hypercall through the page at 0x5000
        mov $1, %ebx
        mov $2, %ecx
        mov $3, %edx
        mov $4, %esi
        mov $5, %edi
        mov $0x5000 + 17 * 32, %ebp
        call *%ebp
        out %eax, $found
        mov %ebp, %eax
        out %eax, $found
        out %al, $end

        guest                           # 8: the engine's port, used by the guest itself
        mov $0x77, %al
        out %al, $0xea
        nop
        out %al, $end

        guest                           # 9: a triple fault
        lidt 1f
        ud2
        .balign 8
1:      .quad 0

        guest                           # 10: for ever
        jmp .

        guest                           # 11: two counters that differ by one at most, however it is stopped
1:      incl counter
        inc %eax
        jmp 1b

        guest                           # 12: an interrupt through the local APIC, twice
        movl $0x1ff, svr
        sti
        out %al, $found
        jmp .

        guest                           # 13: its handler; it leaves its frames where they are
        mov $0x51, %al
        out %al, $found
        movl $0, eoi
        sti
        jmp .

        guest                           # 14: INIT and SIPI to processor 1, whose APIC id is 2; it starts at 0x8000
        movl $0x1ff, svr
        movl $2 << 24, icr_high
        movl $0x4500, icr_low
        movl $2 << 24, icr_high
        movl $0x4608, icr_low
        jmp .

        guest                           # 15: code of processor 1, to be copied to 0x8000: real mode
        .code16
        mov %cs, %ax
        out %ax, $found
        hlt
        jmp .

        guest                           # 16: an instruction where no memory is
        mov $hole, %eax
        jmp *%eax

        guest                           # 17: 64-bit hypercalls
        .code64
        mov $0x1111111122222222, %rdi
        mov $0x3333333344444444, %rsi
        mov $3, %edx
        mov $4, %r10d
        mov $5, %r8d
        mov $17, %eax
        vmcall
        out %eax, $found
        shr $32, %rax
        out %eax, $found
        mov $0x5000 + 18 * 32, %ebp
        call *%rbp
        out %eax, $found
        out %al, $end

        guest                           # 18: the time stamp counter
        rdtsc
        out %eax, $found
        mov %edx, %eax
        out %eax, $found
        out %al, $end

        guest                           # 19: CPUID leaves 1 and 0x40000000
        mov $1, %eax
        cpuid
        mov %ebx, %eax
        out %eax, $found
        mov $0x40000000, %eax
        cpuid
        mov %ebx, %eax
        out %eax, $found
        out %al, $end
