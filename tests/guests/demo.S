# build: ../../src/pvh/demo/hello.elf 64
#
# The demo kernel of the package: says on the debug console what it was given, and powers off.

        .include "pvh.inc"
        .include "print.inc"
        .include "start_info.inc"
        .include "xen.inc"
        pvh_entry _start

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        say "Hello from PVH: entered in 32-bit protected mode, paging off\n"
        cmpl $MAGIC, (%ebx)
        jne lost
        call si_layout
        call tell_start_info
        call tell_modules
        call tell_memory
        call xen_leaves
        test %eax, %eax
        jz bare
        call tell_xen
        say "Powering off\n"
        call xen_poweroff
        say "Xen refused\n"
        leave 1
bare:   say "No Xen here; leaving by the exit port\n"
        leave 0
lost:   say "EBX points to no start_info\n"
        leave 1

tell_start_info:
        say "start_info at 0x"
        mov %ebx, %eax
        call hex32
        cmp $0xc, %edx
        je 1f
        say ", version "
        mov %edx, %eax
        call decimal
        jmp 2f
1:      say ", Draft C"
2:      say "\ncommand line: "
        call si_cmdline
        jmp quoted

tell_modules:
        mov 16(%ebx), %edi
        xor %ebp, %ebp
1:      cmp 12(%ebx), %ebp
        jae 3f
        say "module "
        mov %ebp, %eax
        call decimal
        say " at 0x"
        mov (%edi), %eax
        call hex32
        say ": "
        call si_module
        mov %ecx, %eax
        call decimal
        say " bytes"
        add $8, %edi
        cmp $0xc, %edx
        je 2f
        say ", command line "
        mov 8(%edi), %eax
        call quoted
        add $24, %edi
        add $1, %ebp
        jmp 1b
2:      call newline
        add $1, %ebp
        jmp 1b
3:      ret

# The memory map, which version 1 has; EBP sums up the RAM in MiB.
tell_memory:
        cmp $1, %edx
        jne 4f
        push %edx
        xor %ebp, %ebp
        mov 40(%ebx), %edi
        mov 48(%ebx), %ecx
        jecxz 3f
1:      push %ecx
        say "  0x"
        mov 4(%edi), %edx
        mov (%edi), %eax
        call hex64
        say " - 0x"
        add 8(%edi), %eax
        adc 12(%edi), %edx
        sub $1, %eax
        sbb $0, %edx
        call hex64
        say " "
        mov 16(%edi), %ecx
        cmp $8, %ecx
        jae 2f
        mov type_offsets(, %ecx, 4), %esi
        call puts
        cmpl $1, 16(%edi)
        jne 2f
        mov 8(%edi), %eax
        mov 12(%edi), %edx
        shrd $20, %edx, %eax
        add %eax, %ebp
2:      call newline
        add $24, %edi
        pop %ecx
        loop 1b
3:      say "RAM: "
        mov %ebp, %eax
        call decimal
        say " MiB\n"
        pop %edx
4:      ret

# Xen's version, from the leaf behind the one in EAX.
tell_xen:
        add $1, %eax
        cpuid
        push %eax
        say "Xen "
        mov (%esp), %eax
        shr $16, %eax
        call decimal
        say "."
        pop %eax
        movzwl %ax, %eax
        call decimal
        jmp newline

# Print EDX:EAX in hex; keeps both.
hex64:  push %eax
        mov %edx, %eax
        call hex32
        pop %eax
        jmp hex32

# Print EAX in decimal; keeps every register but EAX and the flags.
decimal:
        push %edx
        push %ecx
        mov $10, %ecx
        xor %edx, %edx
        div %ecx
        test %eax, %eax
        jz 1f
        call decimal
1:      mov %edx, %eax
        call hexdigit
        pop %ecx
        pop %edx
        ret

        .data
        .balign 4
type_offsets:
        .long type0, type1, type2, type3, type4, type5, type6, type7
type0:  .asciz "?"
type1:  .asciz "RAM"
type2:  .asciz "reserved"
type3:  .asciz "ACPI"
type4:  .asciz "NVS"
type5:  .asciz "unusable"
type6:  .asciz "disabled"
type7:  .asciz "persistent"
