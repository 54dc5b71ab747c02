# build: vcpuop.elf 64
#
# vcpu_op as a table of cases (xen: public/vcpu.h, public/hvm/hvm_vcpu.h): one line `name=result` each, results in decimal.
# The names cite the rule: s8 is section 8 of the facts sheet, s8.2 rule 2 of its validation of vcpu_hvm_context. What a
# started AP finds in its registers is in hex. tests/vcpuop/expect.py holds what each line must be.
#
# The guest wants 9 vCPUs and less than 1 GiB of memory; fewer vCPUs give other results, never a crash. Any Xen runs it:
# it uses VMCALL or VMMCALL by the processor's vendor. Words on its command line: `nopae` leaves out what starts or calls
# in PAE mode, `noring3` what calls from CPL 3 (modes.inc says why).

        .include "pvh.inc"
        .include "print.inc"
        .include "hypercall.inc"
        .include "modes.inc"
        .include "contexts.inc"
        .include "lapic.inc"
        pvh_entry _start

        .set TARGET, 1                  # the vCPU of every INITIALISE that a case is about
        .set SPINNER, 2
        .set LIFTER, 3
        .set SIPI, 4
        .set NEIGHBOUR, 5               # never run: vcpu_info, timers, NMI
        .set NEIGHBOUR2, 6
        .set NEIGHBOUR3, 7
        .set STARTED, 8                 # the AP that proves its state, started again and again
        .set VCPUS, -2                  # stands for the number of vCPUs, which is the first that is not

        .set HOLE, 0xd0000000           # no memory there

        .include "aps.inc"

        .text
        .code32
        .globl _start
_start: mov $stack_top, %esp
        cld
        call find_words
        call find_ram_end
        call find_vendor
        call load_tables
        call make_tables
        call fill_window
        call prepare_records
        call count_vcpus
        call print_features
        mov $cases, %esi
        call run
        call run_modes
        call run_starts
        call poweroff
        say "poweroff refused\n"
        leave 1

# Take from start_info where RAM ends.
find_ram_end:
        mov 40(%ebx), %edi              # memmap_paddr
        mov 48(%ebx), %ecx              # memmap_entries
1:      cmpl $1, 16(%edi)               # the RAM that begins below 1 MiB and ends above
        jne 2f
        mov (%edi), %eax
        cmp $0x100000, %eax
        ja 2f
        add 8(%edi), %eax
        cmp $0x100000, %eax
        ja 3f
2:      add $24, %edi
        loop 1b
        mov $HOLE, %eax
3:      sub $64, %eax
        mov %eax, ram_end_crossing
        ret

# Structures in the window and beside it.
fill_window:
        mov $valid, %esi
        call make_context
        mov $context, %esi
        mov $window2 + 4096 - 64, %edi
        mov $32, %ecx
        rep movsl
        sub $64, %edi                   # the first half was 64 bytes, and MOVS went over the page's end
        mov $context + 64, %esi
        mov $window1, %edi
        mov $16, %ecx
        rep movsl
        movl $-1, window0 + 4096 - 12   # singleshot: far away, no flags, and its last byte is the page's
        movl $0x1fffffff, window0 + 4096 - 8
        movl $0, window0 + 4096 - 4
        mov $sipi_start, %esi
        mov $SIPI_PAGE, %edi
        mov $SIPI_CODE, %ecx
        rep movsb
        mov $SIPI_PAGE + SIPI_RECORD, %edi
        mov $RECORD / 4, %ecx
        xor %eax, %eax
        rep stosl
        ret

# Count the vCPUs by is_up until -ENOENT, 256 at most.
count_vcpus:
        xor %ecx, %ecx
1:      mov $VCPUOP_is_up, %ebx
        xor %edx, %edx
        call vcpu_op
        cmp $-2, %eax
        je 2f
        inc %ecx
        cmp $256, %ecx
        jb 1b
2:      mov %ecx, vcpus
        say "vcpus="
        mov vcpus, %eax
        call decimal
        jmp newline

# What decides which bits of CR4 and EFER are valid.
print_features:
        .macro cpuid_line leaf, subleaf, register
        mov $\leaf, %eax
        mov $\subleaf, %ecx
        cpuid
        mov %\register, %eax
        show "cpuid.\leaf\().\subleaf\().\register="
        .endm
        cpuid_line 0x1, 0, ecx
        cpuid_line 0x1, 0, edx
        cpuid_line 0x7, 0, ebx
        cpuid_line 0x7, 0, ecx
        cpuid_line 0x7, 0, edx
        cpuid_line 0x7, 1, eax
        cpuid_line 0x80000001, 0, ecx
        cpuid_line 0x80000001, 0, edx
        mov $0x80000000, %eax
        cpuid
        cmp $0x80000021, %eax
        jb 1f
        cpuid_line 0x80000021, 0, eax
1:      ret

# The calls whose answer depends on the caller's mode, from each mode.
run_modes:
        movl $REAL, mode
1:      mov mode, %eax
        cmp $PAE, %eax
        jne 2f
        cmpb $0, no_pae
        jne 3f
2:      mov mode_names(, %eax, 4), %eax
        mov %eax, prefix
        mov $mode_cases, %esi
        call run
3:      incl mode
        cmpl $RING3, mode
        jb 1b
        ja 4f
        cmpb $0, no_ring3
        je 1b
4:      movl $FLAT, mode
        ret

# APs started in each mode, by callers of other modes.
run_starts:
        mov $starts, %esi
        call run
        cmpb $0, no_pae
        jne 1f
        mov $starts_pae, %esi
        jmp run
1:      ret

# Run a table: ESI points to records, each a kind and then what its handler takes.
run:    xor %eax, %eax
        lodsb
        jmp *kinds(, %eax, 4)

# A context for vCPU TARGET: name, list. What succeeds is undone by an INIT.
run_context:
        call print_name
        call make_context
        mov $TARGET, %ecx
        call initialise
        test %eax, %eax
        jnz run
        mov $TARGET, %ecx
        call send_init
        jmp run

# The same for a vCPU that is to be started: name, vCPU, list.
run_start:
        call print_name
        xor %eax, %eax
        lodsb
        push %eax
        call make_context
        pop %ecx
        call initialise
        jmp run

# A context with each bit of a field inverted alone: name, how many bits, offset, base.
run_sweep:
        mov %esi, sweep_name
        call skip_name
        lodsw
        mov %esi, sweep_list
        movzbl %al, %ecx
        movzbl %ah, %edx
        xor %ebx, %ebx
1:      pusha
        mov sweep_name, %esi
        call print_name
        mov 16(%esp), %eax              # EBX of PUSHA
        say "."
        mov 16(%esp), %eax
        call decimal
        mov sweep_list, %esi
        call make_context
        mov 16(%esp), %ebx
        mov 20(%esp), %edx
        btc %ebx, context(%edx)
        mov $TARGET, %ecx
        call initialise
        test %eax, %eax
        jnz 2f
        mov $TARGET, %ecx
        call send_init
2:      popa
        inc %ebx
        cmp %ecx, %ebx
        jb 1b
        mov sweep_list, %esi
        call make_context               # moves on
        jmp run

# A call: name, command, vCPU, argument.
run_op: call take_op
1:      mov %eax, call_3
        call call_in_mode
        call report
        cmpl $VCPUOP_initialise, call_1
        jne run
        cmpl $TARGET, call_2
        jne run
        cmpl $0, call_result
        jne run
        mov $TARGET, %ecx
        call send_init
        jmp run

# The same with the argument in memory: name, command, vCPU, where.
run_op_at:
        call take_op
        mov (%eax), %eax
        jmp 1b

# A routine of the guest; it keeps ESI.
run_act:
        lodsl
        push %esi
        call *%eax
        pop %esi
        jmp run

# A line with a value that an earlier step left behind: name, where.
run_value:
        call print_name
        lodsl
        mov (%eax), %eax
        mov %eax, call_result
        call report_32
        jmp run

# The mode of the callers from here on, and what names begin with: mode, prefix.
run_mode:
        xor %eax, %eax
        lodsb
        mov %eax, mode
        mov %esi, prefix
        call skip_name
        jmp run

run_end:
        ret

# Call INITIALISE for the vCPU in ECX with `context`, and report; EAX = the result.
initialise:
        movl $VCPUOP_initialise, call_1
        mov %ecx, call_2
        movl $context, call_3
        call call_in_mode
        push %eax
        call report
        pop %eax
        ret

# Take what run_op and run_op_at have in common; EAX = the last field.
take_op:
        call print_name
        lodsb
        movsbl %al, %eax
        mov %eax, call_1
        lodsb
        movsbl %al, %eax
        cmp $VCPUS, %eax
        jne 1f
        mov vcpus, %eax
1:      mov %eax, call_2
        lodsl
        ret

# Print the prefix and the name at ESI; moves ESI past it.
print_name:
        push %esi
        mov prefix, %esi
        call puts
        pop %esi
        jmp puts

skip_name:
        lodsb
        test %al, %al
        jnz skip_name
        ret

# Print `=` and call_result; from 64-bit code it must be a 32-bit result with its sign extended.
report: cmpl $LONG, mode
        jne report_32
        mov call_result, %eax
        cltd
        cmp call_result + 4, %edx
        je report_32
        push %esi
        say "=high:"
        pop %esi
        mov call_result + 4, %eax
        call hex32
        jmp newline
report_32:
        mov $'=', %al
        out %al, $DEBUG_PORT
        mov call_result, %eax
        test %eax, %eax
        jns 1f
        push %eax
        mov $'-', %al
        out %al, $DEBUG_PORT
        pop %eax
        neg %eax
1:      call decimal
        jmp newline

        .include "vcpuop_acts.inc"
        .include "vcpuop_cases.inc"

        .data
        .balign 4
kinds:  .long run_end, run_context, run_start, run_sweep, run_op, run_op_at, run_act, run_value, run_mode
mode_names:
        .long name0, name1, name2, name3, name4, name5, name6, name7
prefix: .long nothing
vcpus:  .long 0
ram_end_crossing:
        .long 0
sweep_name:
        .long 0
sweep_list:
        .long 0
nothing:
        .byte 0
name0:  .asciz "real."
name1:  .asciz "protected16."
name2:  .asciz "flat."
name3:  .asciz "paged."
name4:  .asciz "pae."
name5:  .asciz "compat."
name6:  .asciz "long."
name7:  .asciz "ring3."
