# Two vCPUs mask and unmask event channels that are neighbours in one word, each every other one, while the host sends to
# all of them; each vCPU is interrupted for every other pair. Unmasking is as Linux does it (events_2l.c): by a LOCKed
# instruction where nothing is pending, else by EVTCHNOP_unmask.
#
# The host counts up an entry of SEQ, then sends. A handler takes the pending bit, then copies the entry to SEEN: once they
# are equal no event was lost, however many became one. A mask bit that is not as its only owner left it was undone by
# somebody: that is counted. The host ends it by STOP.

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "modes.inc"
        .include "contexts.inc"
        .include "lapic.inc"
        pvh_entry _start

        .set __HYPERVISOR_memory_op, 12
        .set __HYPERVISOR_event_channel_op, 32
        .set __HYPERVISOR_hvm_op, 34
        .set XENMEM_add_to_physmap, 7
        .set EVTCHNOP_bind_ipi, 7
        .set EVTCHNOP_unmask, 9
        .set HVMOP_set_evtchn_upcall_vector, 23
        .set DOMID_SELF, 0x7ff0

        .set SHARED_INFO, 0x90000               # over RAM that nothing else uses; the layout is the 64-bit one (echo.S)
        .set INFO, 64                           # bytes of a vcpu_info
        .set PENDING_SEL, SHARED_INFO + 8
        .set PENDING, SHARED_INFO + 0x800
        .set MASK, SHARED_INFO + 0xa00

        .set SEQ, 0x40000                       # a doubleword for each port; the host writes these
        .set SEEN, 0x41000
        .set STOP, 0x42000
        .set FIRST, 4                           # ports 4 to 51, all of one word
        .set PAIRS, 24
        .set END, FIRST + 2 * PAIRS
        .set VECTOR, 0x40                       # of vCPU 0; the next is vCPU 1's

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call find_vendor
        call load_tables
        mov $idt + VECTOR * 8, %edi
        mov $upcall0, %eax
        mov $0x8e00, %edx
        call gate
        mov $upcall1, %eax
        call gate
        mov $SEQ, %edi
        mov $(STOP + 4 - SEQ) / 4, %ecx
        xor %eax, %eax
        rep stosl
        movl $SVR_ON, LAPIC + LAPIC_SVR

        mov $__HYPERVISOR_memory_op, %eax
        mov $XENMEM_add_to_physmap, %ebx
        mov $physmap, %ecx
        call must
        mov $__HYPERVISOR_hvm_op, %eax
        mov $HVMOP_set_evtchn_upcall_vector, %ebx
        mov $vector0, %ecx
        call must
        mov $__HYPERVISOR_hvm_op, %eax
        mov $vector1, %ecx
        call must
        call bind

        mov $list_other, %esi
        call make_context
        mov $VCPUOP_initialise, %ebx
        mov $1, %ecx
        mov $context, %edx
        call vcpu_op
        mov $VCPUOP_up, %ebx
        call vcpu_op
        test %eax, %eax
        jz 1f
        say "chanmask needs 2 vCPUs\n"
        leave 1
1:      call yield
        cmpl $0, ready
        je 1b
        say "chanmask begins\n"
        sti
        call toggle0
1:      call yield
        cmpl $0, done
        je 1b
        tell "chanmask.toggles=", toggles
        tell " ", toggles + 4
        tell " hypercalls=", hypercalls
        tell " ", hypercalls + 4
        tell " undone=", undone
        tell " ", undone + 4
        call newline
        call poweroff
        leave 1

# The other vCPU.
other:  mov $other_stack, %esp
        call load_registers
        movl $SVR_ON, LAPIC + LAPIC_SVR
        incl ready
        sti
        call toggle1
        cli
        incl done
        mov $VCPUOP_down, %ebx
        mov $1, %ecx
        call vcpu_op

# Bind the ports; what is below the first is bound to vCPU 0, too.
bind:   xor %edx, %edx                          # the vCPU: bit 1 of the port
1:      mov %edx, ipi
        mov $__HYPERVISOR_event_channel_op, %eax
        mov $EVTCHNOP_bind_ipi, %ebx
        mov $ipi, %ecx
        call must
        mov ipi + 4, %edx
        inc %edx
        cmp $END, %edx
        jae 2f
        shr $1, %edx
        and $1, %edx
        jmp 1b
2:      ret

# A hypercall that has to succeed.
must:   call call32
        test %eax, %eax
        js 1f
        ret
1:      show "chanmask: hypercall refused: "
        leave 1

        .macro of_vcpu n
# Take what is pending for this vCPU. The end of interrupt first: what comes meanwhile interrupts again. No IRET: a KVM
# without hardware below fails at it.
upcall\n:
        push %eax
        push %ecx
        push %edx
        movl $0, LAPIC + LAPIC_EOI
1:      xor %eax, %eax
        xchg %al, SHARED_INFO + \n * INFO
        xor %eax, %eax
        xchg %eax, PENDING_SEL + \n * INFO
        test $1, %al
        jz 4f
        mov $FIRST, %ecx
2:      mov %ecx, %edx
        shr $1, %edx
        and $1, %edx
        cmp $\n, %edx
        jne 3f
        bt %ecx, PENDING
        jnc 3f
        bt %ecx, MASK
        jc 3f
        lock btr %ecx, PENDING
        mov SEQ(, %ecx, 4), %eax
        mov %eax, SEEN(, %ecx, 4)
3:      inc %ecx
        cmp $END, %ecx
        jb 2b
4:      cmpb $0, SHARED_INFO + \n * INFO
        jne 1b
        pop %edx
        pop %ecx
        pop %eax
        push 8(%esp)
        popf
        lret $4

# Mask and unmask until STOP. EBP is the port, EDI a random number.
toggle\n:
        mov $0x9e3779b9 + \n, %edi
1:      mov %edi, %eax                          # xorshift32 (Marsaglia, "Xorshift RNGs", 2003)
        shl $13, %eax
        xor %eax, %edi
        mov %edi, %eax
        shr $17, %eax
        xor %eax, %edi
        mov %edi, %eax
        shl $5, %eax
        xor %eax, %edi

        mov %edi, %eax
        xor %edx, %edx
        mov $PAIRS, %ecx
        div %ecx
        lea FIRST + \n(, %edx, 2), %ebp
        lock bts %ebp, MASK
        jnc 2f
        incl undone + 4 * \n
2:      mov %edi, %ecx
        shr $16, %ecx
        and $127, %ecx
        cmp $16, %ecx                           # one in eight: others run
        jae 3f
        call yield
3:      pause
        dec %ecx
        jns 3b
        bt %ebp, MASK
        jc 4f
        incl undone + 4 * \n

4:      mov %ebp, %eax
        shr $1, %eax
        and $1, %eax
        cmp $\n, %eax
        jne 5f                                  # interrupts another: Xen has to tell
        lock btr %ebp, MASK
        bt %ebp, PENDING
        jnc 6f
        lock bts %ebp, MASK
5:      mov %ebp, unmasked + 4 * \n
        mov $__HYPERVISOR_event_channel_op, %eax
        mov $EVTCHNOP_unmask, %ebx
        mov $unmasked + 4 * \n, %ecx
        call must
        incl hypercalls + 4 * \n
6:      bt %ebp, MASK
        jnc 7f
        incl undone + 4 * \n
7:      incl toggles + 4 * \n
        cmpl $0, STOP
        je 1b
        ret
        .endm
        of_vcpu 0
        of_vcpu 1

        .data
        .balign 8
physmap:                                        # struct xen_add_to_physmap: shared_info
        .short DOMID_SELF, 0
        .long 0, 0, SHARED_INFO >> 12
vector0:                                        # struct xen_hvm_evtchn_upcall_vector
        .long 0, VECTOR
vector1:
        .long 1, VECTOR + 1
list_other:
        changes BASE32, EIP, other

        .bss
        .balign 4
ipi:    .skip 8                                 # struct evtchn_bind_ipi: vCPU, port
unmasked:
        .skip 8                                 # struct evtchn_unmask, of each vCPU
toggles:
        .skip 8
hypercalls:
        .skip 8
undone: .skip 8
ready:  .skip 4
done:   .skip 4
        .skip 4096
other_stack:
