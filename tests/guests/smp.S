# build: smp.elf 64
#
# Counts its vCPUs by is_up from 16-, 32- and 64-bit code, then starts 1 to 31 of them, each in the next of six modes. Each
# increments a shared counter by LOCKed instructions and a private one, interrupts the BSP and goes down; brought up again,
# it goes on where it stopped and does the same once more. Prints a line for each AP and a summary, and powers off.

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "modes.inc"
        .include "contexts.inc"
        .include "lapic.inc"
        pvh_entry _start

        .set STEPS, 30000               # increments a round: more than an engine runs at a stretch
        .set ROUNDS, 2
        .set MOST, 31                   # APs
        .set VECTOR, 0x40               # of vCPU 0; each AP has its own, so that none is lost in another
        .set SHARED, 0x6000             # the counter, within reach of real mode
        .set STACKS, 0x8000             # 256 bytes each, likewise

# An AP's block, at its DS base in 16- and 32-bit code.
        .set B_PRIVATE, 0
        .set B_VCPU, 4
        .set B_VENDOR, 8
        .set B_VECTOR, 12
        .set B_CANARY, 16               # sum of what its register held, after each `down`
        .set B_DOWN, 20                 # what `down` gave when it came back
        .set B_IPIS, 24                 # counted by the BSP
        .set BLOCK, 32
        .set CANARY, 0x01234567

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call find_words
        call find_vendor
        call load_tables
        call make_tables
        call make_gates
        movl $SVR_ON, LAPIC + LAPIC_SVR
        movl $0, SHARED
        .macro count name, mode
        movl $\mode, mode
        call count_vcpus
        tell "counted.\name=", vcpus
        call newline
        .endm
        count "real", REAL
        count "flat", FLAT
        count "long", LONG
        movl $FLAT, mode
        mov vcpus, %eax
        dec %eax
        cmp $MOST, %eax
        jbe 1f
        mov $MOST, %eax
1:      mov %eax, aps

        call start_all
        mov aps, %eax
        call round_ends
        call bring_up_all
        mov aps, %eax
        add %eax, %eax
        call round_ends
        call tell_all
        call poweroff
        say "poweroff refused\n"
        leave 1

# `vcpus` = for how many is_up has an answer.
count_vcpus:
        xor %ebx, %ebx
1:      movl $VCPUOP_is_up, call_1
        mov %ebx, call_2
        push %ebx
        call call_in_mode
        pop %ebx
        cmp $-2, %eax
        je 2f
        inc %ebx
        cmp $256, %ebx
        jb 1b
2:      mov %ebx, vcpus
        ret

# Gates of the APs' interrupts.
make_gates:
        mov $idt + VECTOR * 8, %edi
        mov $handlers, %eax
        mov $0x8e00, %edx
        mov $MOST + 1, %ecx
1:      call gate
        add $HANDLER, %eax
        loop 1b
        ret

        .set HANDLER, 8
        .balign HANDLER
handlers:
        .set index, 0
        .rept MOST + 1
        .balign HANDLER
        push $index
        jmp handle
        .set index, index + 1
        .endr
handle: pop %ecx
        shl $5, %ecx
        incl blocks + B_IPIS(%ecx)
        incl ipis
        movl $0, LAPIC + LAPIC_EOI
        jmp woken

# INITIALISE and bring up each AP.
start_all:
        mov $1, %ebp
1:      cmp aps, %ebp
        ja 2f
        call start
        inc %ebp
        jmp 1b
2:      ret

# Start the AP in EBP.
start:  mov %ebp, %ebx
        shl $5, %ebx
        add $blocks, %ebx
        mov %ebp, B_VCPU(%ebx)
        mov vendor, %eax
        mov %eax, B_VENDOR(%ebx)
        lea VECTOR(%ebp), %eax
        mov %eax, B_VECTOR(%ebx)
        call mode_of
        mov lists(, %eax, 4), %esi
        call make_context
        mov %ebp, %eax                  # the stack, and the block
        shl $8, %eax
        add $STACKS + 0x100, %eax
        cmpl $0, context
        jne 1f
        mov %eax, context + (ESP & 255)
        mov %ebx, context + (DS_BASE & 255)
        jmp 2f
1:      mov %eax, context + (RSP & 255)
        mov %ebx, context + (RDI & 255)
2:      mov %ebp, %ecx
        mov $VCPUOP_initialise, %ebx
        mov $context, %edx
        call vcpu_op
        test %eax, %eax
        jnz 3f
        mov $VCPUOP_up, %ebx
        call vcpu_op
        test %eax, %eax
        jnz 3f
        ret
3:      push %eax
        say "cannot start an AP: "
        pop %eax
        call hex32
        call newline
        leave 1

# EAX = the mode's number for the AP in EBP.
mode_of:
        lea -1(%ebp), %eax
        xor %edx, %edx
        mov $6, %ecx
        div %ecx
        mov %edx, %eax
        cmpb $0, no_pae
        je 1f
        cmp $3, %eax
        jne 1f
        inc %eax                        # compatibility mode in PAE's place
1:      ret

# Let each AP go on.
bring_up_all:
        mov $1, %ecx
1:      cmp aps, %ecx
        ja 2f
        mov $VCPUOP_up, %ebx
        xor %edx, %edx
        call vcpu_op
        inc %ecx
        jmp 1b
2:      ret

# Wait for EAX interrupts in all, then until every AP is down.
round_ends:
        mov $ipis, %edi
        call sleep_until
        mov $1, %ecx
1:      cmp aps, %ecx
        ja 2f
        mov $VCPUOP_is_up, %ebx
        xor %edx, %edx
        call vcpu_op
        test %eax, %eax
        jz 3f
        call yield
        jmp 1b
3:      inc %ecx
        jmp 1b
2:      ret

# Print each AP's block, and whether the sums are right.
tell_all:
        mov $1, %ebp
1:      cmp aps, %ebp
        ja 2f
        mov %ebp, %ebx
        shl $5, %ebx
        add $blocks, %ebx
        tell "ap.", %ebp
        say "="
        call mode_of
        mov mode_texts(, %eax, 4), %esi
        call puts
        tell " private=", B_PRIVATE(%ebx)
        tell " ipis=", B_IPIS(%ebx)
        tell " down=", B_DOWN(%ebx)
        say " canary="
        mov B_CANARY(%ebx), %eax
        call hex32
        call newline
        cmpl $STEPS * ROUNDS, B_PRIVATE(%ebx)
        setne %al
        cmpl $ROUNDS, B_IPIS(%ebx)
        setne %ah
        or %ah, %al
        cmpl $CANARY, B_CANARY(%ebx)
        setne %ah
        or %ah, %al
        or %al, wrong
        inc %ebp
        jmp 1b
2:      imul $STEPS * ROUNDS, aps, %eax
        cmp %eax, SHARED
        setne %al
        or %al, wrong
        tell "smp vcpus=", vcpus
        tell " shared=", SHARED
        tell " ipis=", ipis
        cmpb $0, wrong
        jne 3f
        say " ok\n"
        ret
3:      say " wrong\n"
        ret

# What an AP does, in 16- and 32-bit code: DS is its block, ES the local APIC, SS the lowest RAM.
        .macro ap_code
        movl $SVR_ON, %es:LAPIC_SVR
1:      mov $STEPS, %ecx
2:      lock incl %ss:SHARED
        incl B_PRIVATE
        dec %ecx
        jnz 2b
        movl $0, %es:LAPIC_ICR_HIGH     # the BSP's APIC id is 0
        mov B_VECTOR, %eax
        mov %eax, %es:LAPIC_ICR
        mov $__HYPERVISOR_vcpu_op, %eax
        mov $VCPUOP_down, %ebx
        mov B_VCPU, %ecx
        xor %edx, %edx
        mov B_VENDOR, %ebp
        call hypercall
        mov %eax, B_DOWN
        add %esi, B_CANARY
        jmp 1b
        .endm
        .code16
ap16:   ap_code
        .code32
ap32:   ap_code

        .code64                         # the same with flat segments: RDI is the block
ap64:   mov $LAPIC, %eax
        movl $SVR_ON, LAPIC_SVR(%rax)
        mov %rdi, %r12
        mov %esi, %r13d
1:      mov $STEPS, %ecx
2:      lock incl SHARED
        incl B_PRIVATE(%r12)
        dec %ecx
        jnz 2b
        mov $LAPIC, %eax
        movl $0, LAPIC_ICR_HIGH(%rax)
        mov B_VECTOR(%r12), %edx
        mov %edx, LAPIC_ICR(%rax)
        mov $__HYPERVISOR_vcpu_op, %eax
        mov $VCPUOP_down, %edi
        mov B_VCPU(%r12), %esi
        xor %edx, %edx
        mov B_VENDOR(%r12), %ebp
        call hypercall
        mov %eax, B_DOWN(%r12)
        add %r13d, B_CANARY(%r12)
        jmp 1b

        .data
        .balign 4
lists:  .long list0, list1, list2, list3, list4, list5
mode_texts:
        .long text0, text1, text2, text3, text4, text5
vcpus:  .long 0
aps:    .long 0
ipis:   .long 0
wrong:  .byte 0
text0:  .asciz "real"
text1:  .asciz "flat"
text2:  .asciz "paged"
text3:  .asciz "pae"
text4:  .asciz "compat"
text5:  .asciz "long"

        .macro list32 pairs:vararg
        .byte BASE32
        with ES_BASE, LAPIC, ESI, CANARY, \pairs
        .byte 0xff
        .endm
list0:  .byte BASE32                    # real mode, each segment where it likes
        with CS_BASE, code_base, EIP, ap16-code_base, CS_AR, 0x9b, DS_AR, 0x93, ES_AR, 0x93, SS_AR, 0x93
        with CS_LIMIT, 0xffff, DS_LIMIT, 0xffff, ES_LIMIT, 0xffff, SS_LIMIT, 0xffff, CR0, 0, ES_BASE, LAPIC, ESI, CANARY
        .byte 0xff
list1:  list32 EIP, ap32
list2:  list32 EIP, ap32, CR0, 0x80000001, CR3, directory32, CR4, CR4_PSE
list3:  list32 EIP, ap32, CR0, 0x80000001, CR3, pdpt_pae, CR4, CR4_PAE
list4:  list32 EIP, ap32, CR0, 0x80000001, CR3, pml4, CR4, CR4_PAE, EFER32, EFER_LME
list5:  changes BASE64, RIP, ap64, CR3_64, pml4, RSI, CANARY

        .bss
        .balign 32
blocks: .skip BLOCK * (MOST + 1)
