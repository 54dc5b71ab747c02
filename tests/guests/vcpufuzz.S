# build: vcpufuzz.elf 64
#
# Random vcpu_op calls (xen: public/vcpu.h) from four vCPUs at once, two in 32-bit code and two in 64-bit code, until there
# were so many; then how often each operation had each result, and poweroff. The command line is two hex numbers of
# eight digits: the seed and the number of calls. Behind them, `nopaged` keeps the third caller out of paging. Needs 16
# vCPUs: the first four call, the others are what contexts are tried on.
#
# A call that may end the run - the BSP down, a random context up - is made once where it was drawn 512 times, and
# counted. Such a run may end anywhere, so the counters are where the host finds them: at COUNTS. No address is ever taken
# from what Xen wrote: the guest would overwrite itself.

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "modes.inc"
        .include "contexts.inc"
        .include "lapic.inc"
        pvh_entry _start

        .set CALLERS, 4
        .set VCPUS, 16
        .set OPS, 17                    # 0 to 15, and the unknown together
        .set ROW, 1024                  # of counters of one operation: result -128 to 127
        .set COUNTS, 0x54000            # OPS rows for each caller
        .set BLOCKS, 0x66000            # a block for each caller
        .set BLOCKS_END, 0x66100
        .set ARENA, 0x40000             # for each caller two pages of structures, and two that Xen may write
        .set ARENA_SHIFT, 14
        .set WRITTEN, 0x2000            # the latter
        .set STACKS, 0x50000            # 1 KiB each
        .set RAM_END, 32 << 20
        .set HOLE, 0xd0000000
        .set RISK, 512
        .set INIT, 0x4500

# A caller's block; the host reads the first three.
        .set B_CALLS, 0
        .set B_RISKY, 4                 # calls made that may end the run
        .set B_ODD, 8                   # results that are no row's
        .set B_STATE, 12                # of the generator
        .set B_ID, 16
        .set B_OP, 20                   # the row
        .set B_COMMAND, 24
        .set B_VCPU, 28
        .set B_POINTER, 32              # 64 bits
        .set B_WRITABLE, 40             # whether the pointer leads to the caller's arena
        .set BLOCK, 64

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call read_words
        call find_vendor
        call load_tables
        mov $idt + 2 * 8, %edi
        mov $nmi32, %eax
        mov $0x8e00, %edx
        call gate
        mov $idt64 + 2 * 16, %edi       # a 64-bit gate is a 32-bit one with another half, here zero
        mov $nmi64, %eax
        call gate
        movw $CS64, idt64 + 2 * 16 + 2
        call make_tables
        call make_blocks
        call make_bases
        movl $SVR_ON, LAPIC + LAPIC_SVR
        mov $1, %ebp
1:      call start
        inc %ebp
        cmp $CALLERS, %ebp
        jb 1b
        incl go
        mov $BLOCKS, %ebp
        jmp fuzz32

# Take the seed and the number of calls.
read_words:
        mov 24(%ebx), %esi              # cmdline_paddr
        call read_hex
        mov %edx, seed
        call read_hex
        mov %edx, wanted
        cmpb $'n', (%esi)
        sete no_paged
        ret

# EDX = the eight hex digits at ESI; moves ESI past them and a space.
read_hex:
        mov $8, %ecx
1:      lodsb
        sub $'0', %al
        cmp $10, %al
        jb 2f
        sub $'a' - '0' - 10, %al
2:      shl $4, %edx
        and $15, %al
        or %al, %dl
        loop 1b
        cmpb $' ', (%esi)
        jne 3f
        inc %esi
3:      ret

make_blocks:
        mov $COUNTS, %edi
        mov $(BLOCKS_END - COUNTS) / 4, %ecx
        xor %eax, %eax
        rep stosl
        mov $BLOCKS, %edi
        xor %ecx, %ecx
1:      mov %ecx, B_ID(%edi)
        inc %ecx
        imul $0x9e3779b9, %ecx, %eax
        xor seed, %eax
        jnz 2f
        inc %eax
2:      mov %eax, B_STATE(%edi)
        add $BLOCK, %edi
        cmp $CALLERS, %ecx
        jb 1b
        ret

# Contexts that start what goes down at once.
make_bases:
        mov $tame_list32, %esi
        mov $bases_made, %edi
        call 1f
        mov $tame_list64, %esi
1:      push %edi
        call make_context
        pop %edi
        mov $context, %esi
        mov $32, %ecx
        rep movsl
        ret

# Start the caller in EBP, and wait until it is ready for NMIs.
start:  mov $caller, %esi
        call make_context
        mov %ebp, context + (EAX & 255)
        mov $VCPUOP_initialise, %ebx
        mov %ebp, %ecx
        mov $context, %edx
        call vcpu_op
        mov $VCPUOP_up, %ebx
        call vcpu_op
        test %eax, %eax
        jz 1f
        say "vcpufuzz needs 16 vCPUs\n"
        leave 1
1:      call yield
        cmp ready, %ebp
        jne 1b
        ret

# An AP that calls, EAX its vCPU: the third from paged 32-bit code, the others from 64-bit code.
start_caller:
        mov %eax, %ebp
        shl $10, %eax
        lea STACKS + 0x400(%eax), %esp
        mov %ebp, %ebx
        call load_registers
        imul $BLOCK, %ebx, %ebp
        add $BLOCKS, %ebp
        cmp $2, %ebx
        jne 2f
        cmpb $0, no_paged
        jne 1f
        mov $directory32, %eax
        mov %eax, %cr3
        mov $CR4_PSE, %eax
        mov %eax, %cr4
        mov %cr0, %eax
        or $CR0_PG, %eax
        mov %eax, %cr0
1:      incl ready
        call await_go
        jmp fuzz32
2:      call enter_long
        ljmp $CS64, $1f
        .code64
1:      lidt idt64_pointer
        incl ready
1:      pause
        cmpl $0, go
        je 1b
        jmp fuzz64

        .code32
await_go:
        pause
        cmpl $0, go
        je await_go
        ret

# An NMI changes nothing. Not IRET: a KVM without hardware below fails at it. So no second one comes where it is needed.
nmi32:  push 8(%esp)
        popf
        lret $4
        .code64
nmi64:  push %rax
        push %rcx
        mov 40(%rsp), %rax              # RSP as it was, less than 16 bytes behind the frame
        mov 16(%rsp), %rcx
        sub $8, %rax
        mov %rcx, (%rax)
        mov %rax, 40(%rsp)
        push 32(%rsp)
        popf
        pop %rcx
        pop %rax
        mov 24(%rsp), %rsp
        ret

# A vCPU started by a context that nothing changed: EAX is its id.
        .code32
tame32: mov %eax, %ecx
1:      mov $__HYPERVISOR_vcpu_op, %eax
        mov $VCPUOP_down, %ebx
        mov vendor, %ebp
        call hypercall
        jmp 1b
        .code64
tame64: mov %eax, %esi
1:      mov $__HYPERVISOR_vcpu_op, %eax
        mov $VCPUOP_down, %edi
        mov vendor, %ebp
        call hypercall
        jmp 1b

        .include "vcpufuzz_calls.inc"
        .code32
        calls 32
        .code64
        calls 64

        .code32
# The end, on the BSP: the other callers down, and the counters.
finish: mov $1, %ecx
1:      mov $VCPUOP_down, %ebx
        call vcpu_op
        inc %ecx
        cmp $CALLERS, %ecx
        jb 1b
        mov $50, %ecx                   # a `down` need not be complete when it returns
1:      call yield
        loop 1b
        xor %ebp, %ebp
1:      call print_row
        inc %ebp
        cmp $OPS, %ebp
        jb 1b
        mov $BLOCKS, %ebp
1:      tell "caller.", B_ID(%ebp)
        tell " calls=", B_CALLS(%ebp)
        tell " risky=", B_RISKY(%ebp)
        tell " odd=", B_ODD(%ebp)
        call newline
        add $BLOCK, %ebp
        cmp $BLOCKS_END, %ebp
        jb 1b
        say "vcpufuzz end\n"
        call poweroff
        say "poweroff refused\n"
        leave 1

# Print the counters of the operation in EBP that are not zero, all callers together.
print_row:
        xor %ebx, %ebx
1:      mov %ebp, %ecx
        shl $10, %ecx
        lea COUNTS(%ecx, %ebx, 4), %edi
        mov $CALLERS, %ecx
        xor %eax, %eax
2:      add (%edi), %eax
        add $OPS * ROW, %edi
        loop 2b
        test %eax, %eax
        jz 4f
        push %eax
        mov %ebp, %eax
        call decimal
        mov $' ', %al
        out %al, $DEBUG_PORT
        lea -128(%ebx), %eax
        test %eax, %eax
        jns 3f
        mov $'-', %al
        out %al, $DEBUG_PORT
        mov $128, %eax
        sub %ebx, %eax
3:      call decimal
        mov $'=', %al
        out %al, $DEBUG_PORT
        pop %eax
        call decimal
        call newline
4:      inc %ebx
        cmp $256, %ebx
        jb 1b
        ret

        .data
        .balign 8
caller: changes BASE32, EIP, start_caller
tame_list32:
        changes BASE32, EIP, tame32
tame_list64:
        changes BASE64, RIP, tame64, CR3_64, pml4
        .balign 8
times:  .quad 0, 1, 999999, 1000000, 1000001, 50000000, 1000000000, 1 << 50, 1 << 61, 1 << 62, (1 << 62) - 1
        .quad (1 << 62) + 1, 0x7fffffffffffffff, 0x8000000000000000, -1, 20000000
places: .long HOLE >> 12, RAM_END >> 12, 0xfee00, 0xffffffff
no_paged:
        .byte 0
idt64_pointer:
        .word 3 * 16 - 1
        .quad idt64

        .bss
        .balign 16
idt64:  .skip 3 * 16
bases_made:
        .skip 256
seed:   .skip 4
wanted: .skip 4
ready:  .skip 4
go:     .skip 4
