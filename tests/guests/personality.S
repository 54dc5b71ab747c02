# What the hypervisor answers a PVH guest, as a table to compare with real Xen's (tests/oracle): its CPUID leaves, every
# hypercall number with arguments of 0, xen_version's answers, memory_op's, HVM parameters, event channels, the hypercall
# page, ports without a device. One `name=value` a line, in hex. Page 0 is RAM here, cleared: an address of 0 is no fault.

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "xen.inc"
        pvh_entry _start

        .set __HYPERVISOR_memory_op, 12
        .set __HYPERVISOR_xen_version, 17
        .set __HYPERVISOR_event_channel_op, 32
        .set __HYPERVISOR_hvm_op, 34
        .set XENVER_get_features, 6
        .set EVTCHNOP_status, 5
        .set HVMOP_get_param, 1
        .set DOMID_SELF, 0x7ff0
        .set SIGHT, 24                  # bytes of an answer that are printed
        .set HYPERCALLS, 56             # numbers that have or had a meaning, and those for architectures (xen.h)
        .set PARAMS, 42                 # HVM_NR_PARAMS, and some more
        .set PORTS, 6

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call xen_leaves
        mov %eax, leaves
        test %eax, %eax
        jz lost
        call find_vendor
        call tell_leaves
        call tell_versions
        call tell_memory
        call tell_params
        call tell_channels
        call tell_page
        call tell_ports
        call tell_hypercalls            # last: who knows what some of them do
        say "end\n"
        call poweroff
lost:   leave 1

# Print `name`, which number EDI is, and what comes before the value.
        .macro numbered name, then="="
        say "\name"
        mov %edi, %eax
        call hex8
        say "\then"
        .endm

# Leaves +0 to +5, those with subleaves from 0 to 2: EAX, EBX, ECX, EDX.
tell_leaves:
        xor %edi, %edi
1:      xor %ebp, %ebp
2:      numbered "leaf", "."
        mov %ebp, %eax
        call hex8
        say "="
        mov leaves, %eax
        add %edi, %eax
        mov %ebp, %ecx
        cpuid
        push %edx
        push %ecx
        push %ebx
        call hex32
        .rept 3
        say "/"
        pop %eax
        call hex32
        .endr
        call newline
        inc %ebp
        cmp $3, %edi
        jne 3f
        cmp $3, %ebp
        jb 2b
3:      inc %edi
        cmp $6, %edi
        jb 1b
        ret

# Commands 0 to 10 with a cleared page as the argument: result, then the page's first bytes.
tell_versions:
        xor %edi, %edi
1:      call clear_page
        mov $__HYPERVISOR_xen_version, %eax
        mov %edi, %ebx
        mov $page, %ecx
        call call32
        push %eax
        numbered "xen_version"
        pop %eax
        call answer
        inc %edi
        cmp $11, %edi
        jb 1b

        # get_features of submap 1, which is none; submap 0 was asked for above.
        call clear_page
        movl $1, page
        mov $__HYPERVISOR_xen_version, %eax
        mov $XENVER_get_features, %ebx
        mov $page, %ecx
        call call32
        show "features1="
        ret

# memory_op's questions: 2 maximum_ram_page without an argument, 3 and 4 current and maximum reservation of ourselves,
# 9 the memory map: how many entries.
tell_memory:
        .irp command, 2, 3, 4
        movl $DOMID_SELF, page
        mov $__HYPERVISOR_memory_op, %eax
        mov $\command, %ebx
        mov $page, %ecx
        call call32
        show "memory_op0\command="
        .endr
        call clear_page
        movl $128, page                 # struct xen_memory_map: room for so many entries, where
        movl $page + 64, page + 4
        mov $__HYPERVISOR_memory_op, %eax
        mov $9, %ebx
        mov $page, %ecx
        call call32
        show "memory_op09="
        mov page, %eax
        show "memory_map.nr_entries="
        mov page, %ebp
        mov $page + 64, %ebx
        xor %edi, %edi
1:      cmp %ebp, %edi
        jae 2f
        numbered "memory_map"
        mov %ebx, %esi
        mov $20, %ecx                   # struct e820entry, packed
        call hexbytes
        call newline
        add $20, %ebx
        inc %edi
        jmp 1b
2:      ret

# hvm_op(get_param): result and value.
tell_params:
        xor %edi, %edi
1:      movl $DOMID_SELF, page          # struct xen_hvm_param
        mov %edi, page + 4
        movl $0, page + 8
        movl $0, page + 12
        mov $__HYPERVISOR_hvm_op, %eax
        mov $HVMOP_get_param, %ebx
        mov $page, %ecx
        call call32
        push %eax
        numbered "param"
        pop %eax
        call hex32
        say "/"
        mov page + 12, %eax
        call hex32
        mov page + 8, %eax
        call hex32
        call newline
        inc %edi
        cmp $PARAMS, %edi
        jb 1b
        ret

# event_channel_op(status) of the first ports: result, status, vCPU.
tell_channels:
        xor %edi, %edi
1:      call clear_page
        movl $DOMID_SELF, page          # struct evtchn_status
        mov %edi, page + 4
        mov $__HYPERVISOR_event_channel_op, %eax
        mov $EVTCHNOP_status, %ebx
        mov $page, %ecx
        call call32
        push %eax
        numbered "port"
        pop %eax
        call hex32
        say "/"
        mov page + 8, %eax
        call hex32
        say "/"
        mov page + 12, %eax
        call hex32
        call newline
        inc %edi
        cmp $PORTS, %edi
        jb 1b
        ret

# The hypercall page (leaf +2: its MSR): stubs 0, 1, 23, which is iret, 24 and 127.
tell_page:
        call clear_page
        mov leaves, %eax
        add $2, %eax
        cpuid
        mov %ebx, %ecx
        xor %edx, %edx
        mov $page, %eax
        wrmsr
        .irp stub, 0, 1, 23, 24, 127
        mov $\stub, %edi
        numbered "stub"
        mov $page + 32 * \stub, %esi
        mov $16, %ecx
        call hexbytes
        call newline
        .endr
        ret

# Ports of a PC, and the debug console's.
tell_ports:
        .irp port, 0x10, 0x21, 0x40, 0x60, 0x64, 0x70, 0x71, 0x80, 0x92, 0xe9, 0x3f8, 0x3fd, 0xcf8, 0xb000, 0xb008
        mov $\port, %edx
        xor %eax, %eax
        in %dx, %al
        show "in8.\port="
        .endr
        mov $0x10, %edx
        in %dx, %ax
        movzwl %ax, %eax
        show "in16.0x10="
        mov $0xcf8, %edx
        in %dx, %eax
        show "in32.0xcf8="
        mov 0xf0000000, %eax
        show "hole="
        ret

# Each number with arguments of 0.
tell_hypercalls:
        xor %edi, %edi
1:      mov %edi, %eax
        xor %ebx, %ebx
        xor %ecx, %ecx
        xor %edx, %edx
        xor %esi, %esi
        push %edi
        xor %edi, %edi
        call call32
        pop %edi
        push %eax
        numbered "hypercall"
        pop %eax
        call hex32
        call newline
        inc %edi
        cmp $HYPERCALLS, %edi
        jb 1b
        ret

# Print EAX and the first bytes of the page. Clobbers ESI, ECX and AL.
answer: call hex32
        say "/"
        mov $page, %esi
        mov $SIGHT, %ecx
        call hexbytes
        jmp newline

clear_page:
        push %edi
        mov $page, %edi
        xor %eax, %eax
        mov $1024, %ecx
        rep stosl
        pop %edi
        ret

        .bss
        .balign 4096
page:   .skip 4096
leaves: .skip 4
