# build: callback.elf 64
#
# Events by the callback vector (HVM_PARAM_CALLBACK_IRQ of type 2), which passes by the local APIC: no EOI is ever sent, and
# the vector comes again as long as evtchn_upcall_pending is set (xen: arch/x86/hvm/irq.c, hvm_vcpu_has_pending_irq).
# vCPU 0 sends itself events with interrupts off, with LINT0 as ExtINT and with LINT0 masked, its APIC being disabled; vCPU 1
# does the latter too, and then is sent some by vCPU 0 while it sleeps in HLT. Needs 2 vCPUs.

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
        .set EVTCHNOP_send, 4
        .set EVTCHNOP_bind_ipi, 7
        .set EVTCHNOP_unmask, 9
        .set HVMOP_set_param, 0
        .set DOMID_SELF, 0x7ff0
        .set EVTCHN_PENDING, 0x800      # in a 32-bit shared_info; its vcpu_info are 64 bytes each
        .set SEL, 4                     # evtchn_pending_sel in vcpu_info
        .set VECTOR, 0x51
        .set LAPIC_LINT0, 0x350
        .set EXTINT, 0x700
        .set MASKED, 0x10000
        .set EVENTS, 20
        .set AGAIN, 2                   # times that an upcall is left pending
        .set PATIENCE, 20000000         # turns of an empty loop

# What a vCPU counts, at EBX while it takes events. B_VCPU is struct evtchn_bind_ipi, and B_PORT struct evtchn_send.
        .set B_TAKEN, 0
        .set B_EARLY, 4                 # while interrupts were off
        .set B_LOST, 8                  # in PATIENCE
        .set B_KEEP, 12                 # how often the upcall is to be left pending
        .set B_VCPU, 16
        .set B_PORT, 20
        .set B_INFO, 24                 # its vcpu_info
        .set B_ESP, 28
        .set B_WAIT, 32                 # where the handler goes when more are to come
        .set B_STAGE, 36                # what an AP has done
        .set BLOCK, 40

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
        mov $shared, %eax
        shr $12, %eax
        mov %eax, physmap + 12
        mov $__HYPERVISOR_memory_op, %eax
        mov $XENMEM_add_to_physmap, %ebx
        mov $physmap, %ecx
        call must
        mov $__HYPERVISOR_hvm_op, %eax
        mov $HVMOP_set_param, %ebx
        mov $param, %ecx
        call must

        mov $block_0, %ebx
        call bind
        movl $EXTINT, LAPIC + LAPIC_LINT0
        call rounds
        tell "callback.extint.taken=", block_0 + B_TAKEN
        movl $0, block_0 + B_TAKEN
        movl $MASKED | EXTINT, LAPIC + LAPIC_LINT0
        call rounds
        tell "\ncallback.masked.taken=", block_0 + B_TAKEN

        mov $list_ap, %esi
        call make_context
        mov $VCPUOP_initialise, %ebx
        mov $1, %ecx
        mov $context, %edx
        call vcpu_op
        mov $VCPUOP_up, %ebx
        xor %edx, %edx
        call vcpu_op
        mov $1, %eax
        call ap_reaches
        tell "\ncallback.ap.taken=", block_1 + B_TAKEN
        mov block_1 + B_TAKEN, %ebp
        mov $EVENTS, %edi
1:      mov $EVTCHNOP_send, %eax
        mov $block_1, %ebx
        call event
        inc %ebp
        mov $PATIENCE, %ecx
2:      cmp %ebp, block_1 + B_TAKEN
        je 3f
        pause
        dec %ecx
        jnz 2b
        incl asleep_lost
3:      dec %edi
        jnz 1b
        tell "\ncallback.asleep.taken=", block_1 + B_TAKEN
        tell "\ncallback.early=", block_0 + B_EARLY
        tell "\ncallback.ap.early=", block_1 + B_EARLY
        tell "\ncallback.lost=", block_0 + B_LOST
        tell "\ncallback.ap.lost=", block_1 + B_LOST
        tell "\ncallback.asleep.lost=", asleep_lost
        say "\n"
        call poweroff
        leave 1

# Wait until the AP's stage is EAX.
ap_reaches:
        mov $PATIENCE, %ecx
1:      cmp %eax, block_1 + B_STAGE
        je 2f
        call yield
        dec %ecx
        jnz 1b
2:      ret

ap:     mov $ap_stack, %esp
        call load_registers
        mov $block_1, %ebx
        call bind
        call rounds
        mov B_TAKEN(%ebx), %eax
        add $EVENTS, %eax
        incl B_STAGE(%ebx)
        call asleep
        cli
        hlt
asleep: movl $1f, B_WAIT(%ebx)
        mov %esp, B_ESP(%ebx)
1:      sti
        hlt
        jmp 1b

# Give the vCPU of the block at EBX a port.
bind:   mov B_VCPU(%ebx), %eax
        shl $6, %eax
        add $shared, %eax
        mov %eax, B_INFO(%ebx)
        lea B_VCPU(%ebx), %ecx
        push %ebx
        mov $EVTCHNOP_bind_ipi, %ebx
        mov $__HYPERVISOR_event_channel_op, %eax
        call must
        pop %ebx
        mov $EVTCHNOP_unmask, %eax
        jmp event

# event_channel_op EAX of the port of the block at EBX.
event:  push %ebx
        lea B_PORT(%ebx), %ecx
        mov %eax, %ebx
        mov $__HYPERVISOR_event_channel_op, %eax
        call must
        pop %ebx
        ret

# Hypercall EAX(EBX, ECX), which may not fail.
must:   call call32
        test %eax, %eax
        jz 1f
        show "callback.failed="
        leave 1
1:      ret

# Send the vCPU of the block at EBX events with interrupts off, and take each; then one that is left pending.
rounds: mov $EVENTS, %edi
1:      call send_and_take
        dec %edi
        jnz 1b
        movl $AGAIN, B_KEEP(%ebx)
send_and_take:
        mov B_TAKEN(%ebx), %ebp
        mov $EVTCHNOP_send, %eax
        call event
        mov $1000, %ecx
1:      dec %ecx
        jnz 1b
        cmp %ebp, B_TAKEN(%ebx)
        je 2f
        incl B_EARLY(%ebx)
2:      lea 1(%ebp), %eax
        add B_KEEP(%ebx), %eax
        mov $PATIENCE, %ecx
        movl $take, B_WAIT(%ebx)
        mov %esp, B_ESP(%ebx)
take:   sti
1:      pause
        dec %ecx
        jnz 1b
        cli
        incl B_LOST(%ebx)
        ret

# The handler. It throws the frame away, as sleep_until's do, and goes on to wait until EAX were taken, or returns. It counts
# last: an event that is sent before the port is cleared is none.
upcall: mov B_ESP(%ebx), %esp
        cmpl $0, B_KEEP(%ebx)
        je 1f
        decl B_KEEP(%ebx)
        incl B_TAKEN(%ebx)
        jmp *B_WAIT(%ebx)
1:      mov B_INFO(%ebx), %edx
        movb $0, (%edx)
        movl $0, SEL(%edx)
        mov B_PORT(%ebx), %esi
        lock btr %esi, shared + EVTCHN_PENDING
        incl B_TAKEN(%ebx)
        cmp %eax, B_TAKEN(%ebx)
        jae 2f
        jmp *B_WAIT(%ebx)
2:      ret

        .data
        .balign 8
param:  .short DOMID_SELF, 0            # struct xen_hvm_param
        .long 0
        .quad 2 << 56 | VECTOR
physmap:
        .short DOMID_SELF, 0            # struct xen_add_to_physmap: shared_info
        .long 0, 0, 0
block_0:
        .skip BLOCK
block_1:
        .long 0, 0, 0, 0, 1
        .skip BLOCK - 20
list_ap:
        changes BASE32, EIP, ap

        .bss
        .balign 4096
shared: .skip 4096
asleep_lost:
        .skip 4
        .skip 512
ap_stack:
