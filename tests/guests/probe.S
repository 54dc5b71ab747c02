# build: ../../src/pvh/conformance/probe/probe32.elf 32 probe.ld
# build: ../../src/pvh/conformance/probe/probe64.elf 64 probe.ld
#
# The probe kernel: records what it was given, and says so in lines that pvh.conformance.probe.capture reads:
#
#   pvhprobe1 SEQ TAG ADDRESS BYTES CRC
#
# SEQ counts lines, TAG has four characters, BYTES are hexadecimal, CRC is the CRC-32 of the line up to the blank before
# it. Every line goes to every output in turn: ports 0xe9 and 0x402, a 16550 at 0x3f8, Xen's console_io, Xen's console.
#
# Nothing is used before it is recorded, and nothing but what the ABI promises: the general registers, selectors and
# table registers are stored before there is a stack, the flags by the first push, to a stack of its own.
# What may end in a fault comes last, in two parts, each behind a line `end.` that says all before is said:
#   0  what can be read at no risk            1  MSRs and hidden parts of segments, with an IDT
#   2  TR, by an interrupt from CPL 3; not if "quick" is in a command line (QEMU's TCG takes the busy TSS that the ABI
#      asks for as an invalid one, and aborts)
# Ends by the exit port, by Xen's sched_op, by the keyboard controller, whichever there is.

        .include "pvh.inc"
        pvh_entry _start

        .set CS32, 0x08
        .set DS32, 0x10
        .set CS3, 0x1b
        .set DS3, 0x23
        .set MARK, 0x5045454b
        .set MOST_MODULES, 8
        .set MOST_ENTRIES, 128
        .set MOST_TEXT, 1024

        .set DOMID_SELF, 0x7ff0
        .set __HYPERVISOR_console_io, 18
        .set __HYPERVISOR_sched_op, 29
        .set __HYPERVISOR_event_channel_op, 32
        .set __HYPERVISOR_hvm_op, 34

        .macro put what, size           # as STOS does, but not through ES: its base may be what is wrong
        mov \what, (%edi)
        add $\size, %edi
        .endm

        .text
        .code32
# Where e_entry points, in 32- and in 64-bit code alike: who comes here did not boot by PVH.
        .globl elf_entry
elf_entry:
        mov $stray, %esi
1:      .byte 0xac                      # lodsb
        out %al, $0xe9
        mov $0x402, %edx
        out %al, %dx
        mov $0x3f8, %edx
        out %al, %dx
        test %al, %al
        jnz 1b
stop:   cli
        hlt
        jmp stop

        .globl _start
_start: mov %eax, regs
        mov %ecx, regs + 4
        mov %edx, regs + 8
        mov %ebx, regs + 12
        mov %esp, regs + 16
        mov %ebp, regs + 20
        mov %esi, regs + 24
        mov %edi, regs + 28
        mov %cs, regs + 32
        mov %ds, regs + 34
        mov %es, regs + 36
        mov %ss, regs + 38
        mov %fs, regs + 40
        mov %gs, regs + 42
        sldt regs + 44
        str regs + 46
        sgdt regs + 48
        sidt regs + 54
        mov $stack_top, %esp
        pushfl
        popl regs + 60
        cld
        .macro record register, at
        mov %\register, %eax
        mov %eax, regs + \at
        .endm
        record cr0, 64
        record cr2, 68
        record cr3, 72
        record cr4, 76
        record dr6, 80
        record dr7, 84
        call 1f
1:      pop %eax
        sub $1b, %eax                   # 0 where it is linked to be
        mov %eax, regs + 88

# Bytes of .bss that are not zero; nothing has been stored there yet but the return address of the stack.
        mov $bss_start, %esi
        mov $bss_end - 64, %ecx
        sub %esi, %ecx
        xor %edx, %edx
1:      lodsb
        cmp $1, %al
        sbb $-1, %edx
        loop 1b
        mov %edx, regs + 92

        movb $3, %al
        mov $0x3fb, %edx                # line control: 8 bits, no divisor latch
        out %al, %dx
        call find_xen

        .macro name tag                 # EBX = four characters
        .byte 0xbb
        .ascii "\tag"
        .endm
        .macro tell tag, address, source, count
        mov \count, %ecx
        mov \source, %esi
        mov \address, %edx
        name \tag
        call dump
        .endm

        tell "regs", $regs, $regs, $(regs_end-regs)
        mov $elf_entry, %esi
        mov $code_end, %ecx
        sub %esi, %ecx
        mov %ecx, scratch
        call crc
        mov %eax, scratch + 4
        tell "code", $elf_entry, $scratch, $8

# What the stack pointer points to, and the table that the loader's selectors are of.
        mov regs + 16, %eax
        mov $32, %ecx
        name "stck"
        call tell_safe
        mov regs + 50, %eax
        movzwl regs + 48, %ecx
        inc %ecx
        cmp $64, %ecx
        jbe 1f
        mov $64, %ecx
1:      name "gdt_"
        call tell_safe

        mov regs + 12, %ebp
        tell "info", %ebp, %ebp, $56
        cmpl $MAGIC, (%ebp)
        jne cpuids

        mov 24(%ebp), %eax
        mov 28(%ebp), %edx
        name "cmdl"
        call tell_text

        mov 12(%ebp), %ecx
        cmp $MOST_MODULES, %ecx
        jbe 1f
        mov $MOST_MODULES, %ecx
1:      mov 16(%ebp), %edi
        cmpl $0, 20(%ebp)
        jne 3f
        jecxz 3f
        push %ecx
        shl $5, %ecx
        tell "mods", %edi, %edi, %ecx
        pop %ecx
2:      push %ecx
        mov (%edi), %eax
        mov 4(%edi), %edx
        cmpl $16, 8(%edi)
        jb 4f
        mov $16, %ecx
        name "modh"
        call tell_low
4:      mov 16(%edi), %eax
        mov 20(%edi), %edx
        name "modc"
        call tell_text
        add $32, %edi
        pop %ecx
        loop 2b
3:
        cmpl $1, 4(%ebp)
        jb 2f
        mov 48(%ebp), %ecx
        cmp $MOST_ENTRIES, %ecx
        jbe 1f
        mov $MOST_ENTRIES, %ecx
1:      imul $24, %ecx, %ecx
        mov 40(%ebp), %eax
        mov 44(%ebp), %edx
        name "mmap"
        call tell_low
2:
        mov 32(%ebp), %eax
        mov 36(%ebp), %edx
        mov $36, %ecx
        name "rsdp"
        call tell_low
        mov 32(%ebp), %edi
        test %edi, %edi
        jz cpuids
        cmpl $0x20445352, (%edi)        # "RSD "
        jne cpuids
        mov 16(%edi), %eax
        xor %edx, %edx
        cmpb $2, 15(%edi)
        jb 1f
        mov 24(%edi), %eax
        mov 28(%edi), %edx
1:      mov $36, %ecx
        name "xsdt"
        call tell_low

cpuids: mov $leaves, %esi
1:      lodsl
        cmp $-1, %eax
        je 1f
        call leaf
        jmp 1b
1:      mov xen_base, %eax
        test %eax, %eax
        jz 1f
        call leaf
        mov xen_base, %eax
        add $1, %eax
        call leaf
1:      call part_ends

# Part 1. An IDT: faults go to `faulted`, which resumes at EDI. GDTR is ours too; segments stay as they are.
        mov $idt, %edi
        mov $0x30, %ecx
        mov $faulted, %eax
        mov $0x8e00, %edx
1:      call gate
        loop 1b
        mov $called, %eax
        mov $0xee00, %edx
        call gate                       # INT 0x30
        lgdt gdt_pointer
        lidt idt_pointer

# Each test stores 0 or 1. CS is as it came until the first fault, which loads CS32: so its tests come first.
        movl $MARK, mark
        mov $hidden, %esi
        mov %esp, %ebp
        # CS.D: in 16-bit code this is mov $1,%ax; inc %ax; nop.
        .byte 0xb8, 0x01, 0x00, 0x40, 0x90
        and $3, %eax
        mov %eax, (%esi)
        # SS.B: a push counts in ESP, not in SP alone; the top of the stack is a multiple of 64 KiB.
        push %eax
        xor %eax, %eax
        cmp $stack_top - 4, %esp
        sete %al
        mov %ebp, %esp
        mov %eax, 4(%esi)
        add $8, %esi
        .irp segment, cs, es, ss        # base: reading a known place
        mov $1f, %edi
        xor %eax, %eax
        cmpl $MARK, %\segment:mark
        sete %al
1:      mov %eax, (%esi)
        add $4, %esi
        .endr
        .irp segment, cs, ds, es, ss    # limit: reading the last bytes of 4 GiB
        mov $1f, %edi
        xor %eax, %eax
        mov %\segment:0xfffffffc, %edx
        mov $1, %al
1:      mov %eax, (%esi)
        add $4, %esi
        .endr
        tell "hidn", $hidden, $hidden, $40

        mov $msrs, %esi
1:      lodsl
        test %eax, %eax
        jz 1f
        push %esi
        mov %eax, %ebx
        mov %eax, %ecx
        mov $2f, %edi
        mov %esp, %ebp
        rdmsr
        mov %eax, scratch
        mov %edx, scratch + 4
        mov $8, %eax
        jmp 3f
2:      xor %eax, %eax
3:      tell "msr_", %ebx, $scratch, %eax
        pop %esi
        jmp 1b
1:
        mov $1f, %edi
        mov %esp, %ebp
        mov 0xfee00030, %eax            # the local APIC's version
        mov %eax, scratch
        mov 0xfee00020, %eax
        mov %eax, scratch + 4
        tell "apic", $0xfee00030, $scratch, $8
1:      call part_ends

        testb $1, quick
        jnz done
# Part 2. What TR holds. Its TSS must be at physical 0, which is RAM: the inner stack pointer is at 4, the I/O bitmap's
# offset in the word at 0x66. IN from 0xe9 at CPL 3 reads the word at offset + 0x1d: with offset 0x49 the last inside a
# limit of 0x67, with 0x4a one byte is outside, and #GP follows.
        push $2                         # IOPL 0, NT clear
        popfl
        ljmp $CS32, $1f
1:      mov $DS32, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        movl $inner_top, 4
        movl $DS32, 8
        mov $just_call, %edx
        call ring3
        sub $inner_top, %ecx
        mov %ecx, hidden
        movw $0x49, 0x66
        mov $input, %edx
        call ring3
        mov %eax, hidden + 4
        movw $0x4a, 0x66
        mov $input, %edx
        call ring3
        mov %eax, hidden + 8
        tell "tss_", $0, $hidden, $12
        call part_ends

done:   xor %eax, %eax
        out %al, $EXIT_PORT
        mov $__HYPERVISOR_sched_op, %eax
        mov $2, %ebx                    # SCHEDOP_shutdown
        mov $zero, %ecx                 # SHUTDOWN_poweroff
        call xen
        mov $0xfe, %al                  # a keyboard controller's reset line
        out %al, $0x64
        jmp stop

# Interrupts end here: go on at EDI with the stack of EBP, in ring 0, EAX 1 for INT 0x30, 0 for a fault, ECX the stack
# pointer the processor came with. No IRET: a KVM without hardware below fails at it.
called: mov $1, %eax
        jmp 1f
faulted:
        xor %eax, %eax
1:      mov %esp, %ecx
        mov %ebp, %esp
        jmp *%edi

# A gate at EDI for EAX, of the type in EDX; moves EDI on.
gate:   push %eax
        mov %ax, (%edi)
        movw $CS32, 2(%edi)
        xor %ax, %ax
        or %edx, %eax
        mov %eax, 4(%edi)
        add $8, %edi
        pop %eax
        ret

# Run the code at EDX in ring 3 until it is back by INT 0x30 or a fault; EAX and ECX as `called` says.
ring3:  mov $1f, %edi
        mov %esp, %ebp
        push $DS3
        push $outer_top
        push $CS3
        push %edx
        lret
1:      mov $DS32, %edx
        mov %edx, %ds
        mov %edx, %es
        ret

input:  in $DEBUG_PORT, %al
just_call:
        int $0x30

# Say one CPUID leaf: EAX; subleaf 0. Keeps ESI.
leaf:   push %esi
        mov %eax, %edi
        xor %ecx, %ecx
        cpuid
        mov %eax, scratch
        mov %ebx, scratch + 4
        mov %ecx, scratch + 8
        mov %edx, scratch + 12
        tell "cpid", %edi, $scratch, $16
        pop %esi
        ret

# A line `end.` with the number of the part that is over.
part_ends:
        tell "end.", part, $part, $4
        incl part
        ret

# Say the string at EDX:EAX under the tag in EBX, its NUL included; nothing for address 0.
tell_text:
        xor %ecx, %ecx
        test %edx, %edx
        jnz tell_low
        test %eax, %eax
        jz tell_low
1:      add $1, %ecx
        cmpl $0x63697571, -1(%eax, %ecx) # "quic"
        sete %dl
        or %dl, quick
        mov $0, %dl
        cmpb $0, -1(%eax, %ecx)
        je tell_low
        cmp $MOST_TEXT, %ecx
        jb 1b
# Say ECX bytes at EAX under the tag in EBX, unless that is 0, or where a device may be.
tell_safe:
        xor %edx, %edx
        cmp $0xfff00000, %eax
        jae tell_low
        cmp $0xc0000000, %eax
        jae 1f
        cmp $0xa0000, %eax
        jb tell_low
        cmp $0xc0000, %eax
        jb 1f
# Say ECX bytes at EDX:EAX under the tag in EBX, if that is below 4 GiB and not 0.
tell_low:
        mov %eax, %esi
        test %edx, %edx
        mov %eax, %edx
        jnz 1f
        test %esi, %esi
        jnz dump
1:      ret

# Say ECX bytes at ESI as lines of 32 bytes each: tag EBX, addresses from EDX on. No bytes, one line. Keeps EDI and EBP.
dump:   push %edi
        push %ebp
1:      mov %ecx, %ebp
        cmp $32, %ecx
        jbe 2f
        mov $32, %ecx
2:      sub %ecx, %ebp
        push %edx
        push %ecx
        push %esi
        mov $line + 10, %edi
        mov sequence, %eax
        incl sequence
        call hex32
        mov %ebx, %eax
        put %eax, 4
        mov $' ', %al
        put %al, 1
        mov %edx, %eax
        call hex32
        pop %esi
        jecxz 4f
3:      lodsb
        push %ecx
        mov $2, %ecx
        shl $24, %eax
        call hex
        pop %ecx
        loop 3b
4:      push %esi
        mov $line, %esi
        mov %edi, %ecx
        sub %esi, %ecx
        call crc
        push %eax
        mov $' ', %al
        put %al, 1
        pop %eax
        call hex32
        movb $'\n', -1(%edi)
        mov %edi, %ecx
        mov $line, %esi
        sub %esi, %ecx
        call say
        pop %esi
        pop %edx                        # how many bytes this line had
        pop %eax
        add %eax, %edx
        mov %ebp, %ecx
        test %ecx, %ecx
        jnz 1b
        pop %ebp
        pop %edi
        ret

# Store EAX as hexadecimal digits and a blank at EDI.
hex32:  push %ecx
        mov $8, %ecx
        call hex
        pop %ecx
        mov $' ', %al
        put %al, 1
        ret

# Store the highest ECX digits of EAX at EDI. Clobbers EAX and ECX.
hex:    rol $4, %eax
        push %eax
        and $15, %al
        cmp $10, %al
        sbb $0x69, %al                  # a digit by BCD arithmetic: 0-9 or A-F
        das
        or $0x20, %al                   # lower case; digits have that bit
        put %al, 1
        pop %eax
        loop hex
        ret

# EAX = the CRC-32 of ECX bytes at ESI. Clobbers ESI, ECX and EDX.
crc:    or $-1, %edx
1:      xor %eax, %eax
        lodsb
        xor %eax, %edx
        mov $8, %al
2:      shr $1, %edx
        jnc 3f
        xor $0xedb88320, %edx
3:      dec %eax
        jnz 2b
        loop 1b
        mov %edx, %eax
        not %eax
        ret

# Send ECX bytes at ESI to each output. Keeps all registers.
say:    pushal
        mov $0xe9, %edx
        call say_port
        mov $0x402, %edx
        call say_port
        pushal
1:      mov $0x3fd, %edx                # line status: wait for room, unless there is no 16550
        mov $0x10000, %edi
2:      in %dx, %al
        cmp $0xff, %al
        je 3f
        test $0x20, %al
        jnz 2f
        dec %edi
        jnz 2b
2:      mov $0x3f8, %edx
        lodsb
        out %al, %dx
        loop 1b
3:      popal
        mov $__HYPERVISOR_console_io, %eax
        xor %ebx, %ebx                  # CONSOLEIO_write
        mov %esi, %edx
        call xen
        mov ring, %edi
        test %edi, %edi
        jz 9f
1:      mov $0x100000, %ebp             # rounds to wait for room
2:      mov 3084(%edi), %edx            # out_prod
        mov %edx, %eax
        sub 3080(%edi), %eax            # out_cons
        cmp $2048, %eax
        jb 3f
        call notify
        push %ecx
        mov $__HYPERVISOR_sched_op, %eax
        xor %ebx, %ebx                  # SCHEDOP_yield
        xor %ecx, %ecx
        call xen
        pop %ecx
        dec %ebp
        jnz 2b
        andl $0, ring                   # nobody reads it
        jmp 9f
3:      and $2047, %edx
        lodsb
        mov %al, 1024(%edi, %edx)
        incl 3084(%edi)
        loop 1b
        call notify
9:      popal
        ret

# Have Xen's console read its ring.
notify: push %ebx
        push %ecx
        mov $__HYPERVISOR_event_channel_op, %eax
        mov $4, %ebx                    # EVTCHNOP_send
        mov $console_port, %ecx
        call xen
        pop %ecx
        pop %ebx
        ret

# Call Xen, if it is there: EAX, and arguments in EBX, ECX, EDX. Keeps all registers but EAX: a debug build does not.
xen:    cmpl $0, xen_base
        je 9f
        pushal
        cmpb $0, amd
        jne 1f
        vmcall
        jmp 2f
1:      vmmcall
2:      mov %eax, 28(%esp)
        popal
9:      ret

say_port:
        pushal
1:      lodsb
        out %al, %dx
        loop 1b
        popal
        ret

# Find Xen's CPUID leaves, and the console's page and port (public/hvm/params.h).
find_xen:
        xor %eax, %eax
        cpuid
        cmp $0x68747541, %ebx           # "Auth" of AuthenticAMD
        sete amd
        cmp $0x6f677948, %ebx           # "Hygo" of HygonGenuine
        jne 1f
        incb amd
1:      mov $0x40000000, %esi
2:      mov %esi, %eax
        cpuid
        cmp $0x566e6558, %ebx           # "XenVMMXenVMM"
        jne 3f
        cmp $0x65584d4d, %ecx
        je 4f
3:      add $0x100, %esi
        cmp $0x40010000, %esi
        jb 2b
9:      ret
4:      mov %esi, xen_base
        mov $18, %eax                   # HVM_PARAM_CONSOLE_EVTCHN
        call param
        jnz 9b
        mov %edx, console_port
        mov $17, %eax                   # HVM_PARAM_CONSOLE_PFN
        call param
        jnz 9b
        shl $12, %edx
        mov %edx, ring
        ret

# EDX = a parameter, by its number in EAX; ZF clear if Xen refused.
param:  mov %eax, hvm_param + 4
        mov $__HYPERVISOR_hvm_op, %eax
        mov $1, %ebx                    # HVMOP_get_param
        mov $hvm_param, %ecx
        call xen
        mov hvm_param + 8, %edx
        test %eax, %eax
        ret

stray:  .asciz "pvhprobe1 e_entry\n"
        .balign 4
leaves: .long 0, 1, 0x40000000, 0x80000000, 0x80000001, 0x80000008, -1
msrs:   .long 0x1b, 0x2ff, 0x277, 0xc0000080, 0x174, 0xc0000082, 0
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # CS32
        .quad 0x00cf93000000ffff        # DS32
        .quad 0x00cffb000000ffff        # CS3
        .quad 0x00cff3000000ffff        # DS3
gdt_pointer:
        .word . - gdt - 1
        .long gdt
idt_pointer:
        .word 0x31 * 8 - 1
        .long idt
zero:   .long 0

        .data
        .balign 4
regs:   .skip 64 + 7 * 4 + 4            # general, selectors, tables, flags; CR0 to DR7, EIP; nonzero bytes of .bss
regs_end:
hvm_param:
        .word DOMID_SELF, 0
        .long 0
        .quad 0
part:   .long 0
sequence:
        .long 0
xen_base:
        .long 0
ring:   .long 0
console_port:
        .long 0
amd:    .byte 0
quick:  .byte 0
line:   .ascii "pvhprobe1 "
        .skip 120

        .bss
scratch:
        .skip 16
mark:   .skip 4
hidden: .skip 64
idt:    .skip 0x31 * 8
        .balign 16
        .skip 512
inner_top:
        .skip 512
outer_top:
