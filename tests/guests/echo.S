# Gives back on the PV console what is typed there, asleep in between; no timer runs. ^D powers off, ^R reboots.

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "modes.inc"
        .include "lapic.inc"
        pvh_entry _start

        .set __HYPERVISOR_memory_op, 12
        .set __HYPERVISOR_event_channel_op, 32
        .set __HYPERVISOR_hvm_op, 34
        .set XENMEM_add_to_physmap, 7
        .set EVTCHNOP_send, 4
        .set HVMOP_get_param, 1
        .set HVMOP_set_evtchn_upcall_vector, 23
        .set HVM_PARAM_CONSOLE_PFN, 17
        .set HVM_PARAM_CONSOLE_EVTCHN, 18
        .set DOMID_SELF, 0x7ff0
        .set SHUTDOWN_reboot, 1

        .set SHARED_INFO, 0x90000               # over RAM that nothing else uses
        .set UPCALL_PENDING, SHARED_INFO        # of vCPU 0's vcpu_info; the layout is the 64-bit one, as no call of ours
        .set PENDING_SEL, SHARED_INFO + 8       # latches another (xen: arch/x86/hvm/hvm.c, has_32bit_shinfo)
        .set EVTCHN_PENDING, SHARED_INFO + 0x800

        .set IN_SIZE, 1024                      # struct xencons_interface (public/io/console.h)
        .set OUT, 1024
        .set OUT_SIZE, 2048
        .set IN_CONS, 3072
        .set IN_PROD, 3076
        .set OUT_CONS, 3080
        .set OUT_PROD, 3084

        .set VECTOR, 0x40
        .set CTRL_D, 4
        .set CTRL_R, 18

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call find_vendor
        call load_tables
        mov $idt + VECTOR * 8, %edi
        mov $upcall, %eax
        mov $0x8e00, %edx
        call gate
        movl $SVR_ON, LAPIC + LAPIC_SVR

        mov $__HYPERVISOR_memory_op, %eax
        mov $XENMEM_add_to_physmap, %ebx
        mov $physmap, %ecx
        call must
        mov $__HYPERVISOR_hvm_op, %eax
        mov $HVMOP_set_evtchn_upcall_vector, %ebx
        mov $vector, %ecx
        call must
        mov $HVM_PARAM_CONSOLE_EVTCHN, %eax
        call param
        mov %eax, port
        mov $HVM_PARAM_CONSOLE_PFN, %eax
        call param
        shl $12, %eax
        mov %eax, %ebp                          # the console's page, from here on
        say "echo is ready\n"

next:   cli
        mov IN_CONS(%ebp), %eax
        cmp IN_PROD(%ebp), %eax
        je idle
        and $IN_SIZE - 1, %eax
        movzbl (%ebp,%eax), %edx
        mov OUT_PROD(%ebp), %eax
        mov %eax, %ecx
        sub OUT_CONS(%ebp), %ecx
        cmp $OUT_SIZE, %ecx
        jae full
        incl IN_CONS(%ebp)
        cmp $CTRL_D, %dl
        je off
        cmp $CTRL_R, %dl
        je reboot
        and $OUT_SIZE - 1, %eax
        mov %dl, OUT(%ebp,%eax)
        incl OUT_PROD(%ebp)
        incl told
        jmp next

full:   call ring
        jmp next
idle:   cmpl $0, told                           # ring for what was read and written since, and look again
        je 1f
        call ring
        jmp next
1:      mov %esp, sleeping_esp
        sti
        hlt
        jmp next

# A handler cannot IRET on a KVM without hardware below: see sleep_until.
upcall: movl $0, LAPIC + LAPIC_EOI
        movb $0, UPCALL_PENDING
        movl $0, PENDING_SEL
        movl $0, EVTCHN_PENDING
        mov sleeping_esp, %esp
        jmp next

ring:   movl $0, told
        mov $__HYPERVISOR_event_channel_op, %eax
        mov $EVTCHNOP_send, %ebx
        mov $port, %ecx
        jmp must

# EAX = HVM param EAX.
param:  mov %eax, param_index
        mov $__HYPERVISOR_hvm_op, %eax
        mov $HVMOP_get_param, %ebx
        mov $param_call, %ecx
        call must
        mov param_value, %eax
        ret

# A hypercall that has to succeed.
must:   call call32
        test %eax, %eax
        js 1f
        ret
1:      show "echo: hypercall refused: "
        leave 1

reboot: movl $SHUTDOWN_reboot, zero
off:    call ring
        call poweroff
        leave 1

        .data
        .balign 8
param_call:                                     # struct xen_hvm_param
        .short DOMID_SELF, 0
param_index:
        .long 0
param_value:
        .quad 0
physmap:                                        # struct xen_add_to_physmap: shared_info
        .short DOMID_SELF, 0
        .long 0, 0, SHARED_INFO >> 12
vector: .long 0, VECTOR                         # struct xen_hvm_evtchn_upcall_vector: vCPU 0
port:   .long 0
told:   .long 0
