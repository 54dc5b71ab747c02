# Deliberately wrong kernels, and their twins: clauses of memory and of the platform (see wrong.inc).
        .include "pvh.inc"
        .include "wrong.inc"
        pvh_entry wrong_memory_poison

        .set FAR, 32 << 20              # RAM that nothing is loaded to

# memory.poison: relies on zeroed RAM.
        kernel wrong_memory_poison
        culprit memory_poison
        cmpl $0, FAR
        jne give_up
        jmp done
        kernel right_memory_poison
        movl $0, FAR
        cmpl $0, FAR
        fail_if ne
        cmpl $0, scratch                # .bss is zero
        fail_if ne
        jmp done

# start_info.null: takes what is at 0 for a structure that is not there.
        kernel wrong_start_info_null
        xor %esi, %esi
        culprit start_info_null
        testl $4, (%esi)
        jnz give_up
        jmp done
        kernel right_start_info_null
        mov 24(%ebx), %esi
        test %esi, %esi
        jz done
        testl $4, (%esi)
        jmp done

# memory.legacy: asks BIOS data how much memory there is.
        kernel wrong_memory_legacy
        movzwl 0x413, %eax
        culprit memory_legacy
        cmp $640, %eax
        ja give_up
        jmp done
        kernel right_memory_legacy
        movw $640, 0x413                # RAM as any other, once it is written
        movzwl 0x413, %eax
        cmp $640, %eax
        fail_if a
        jmp done

# memory.placement: clears memory behind its image for itself; start_info may be there.
        kernel wrong_memory_placement
        cld
        xor %eax, %eax
        mov $end, %edi
        mov $16384, %ecx
        culprit memory_placement
        rep stosl
        cmpl $MAGIC, (%ebx)
        fail_if ne
        jmp done
        kernel right_memory_placement
        cld
        mov (%ebx), %ecx
        xor %eax, %eax
        mov $scratch, %edi
        cmp $MAGIC, %ecx
        fail_if ne
        mov $1024, %ecx
        rep stosl
        jmp done

# memory.amount: 512 MiB of RAM, without asking.
        kernel wrong_memory_amount
        movl $MAGIC, (512 << 20) - 64
        culprit memory_amount
        cmpl $MAGIC, (512 << 20) - 64
        jne give_up
        jmp done
        kernel right_memory_amount
        movl $MAGIC, scratch
        cmpl $MAGIC, scratch
        fail_if ne
        jmp done

# rsdp.placement: looks for it where a PC has its BIOS.
        kernel wrong_rsdp_placement
        mov $0xe0000, %esi
1:
        culprit rsdp_placement
        cmpl $0x20445352, (%esi)        # "RSD "
        je done
        add $16, %esi
        cmp $0x100000, %esi
        jb 1b
        jmp done
        kernel right_rsdp_placement
        mov 32(%ebx), %esi
        test %esi, %esi
        jz done
        cmpl $0x20445352, (%esi)
        fail_if ne
        jmp done

# devices: waits for the keyboard controller.
        kernel wrong_devices
        mov $100000, %ecx
1:
        culprit devices
        in $0x64, %al
        test $2, %al
        jz done
        loop 1b
        jmp give_up
        kernel right_devices
        in $0x64, %al
        cmp $0xff, %al
        jmp done

# vcpus: expects to be the only processor (vcpu_op is_up of vCPU 1 is -ENOENT then).
        kernel wrong_vcpus
        mov $24, %eax
        mov $3, %ebx
        mov $1, %ecx
        xor %edx, %edx
        vmcall
        culprit vcpus
        cmp $-2, %eax
        je done
        ud2
        kernel right_vcpus
        mov $24, %eax
        mov $3, %ebx
        mov $1, %ecx
        xor %edx, %edx
        vmcall
        cmp $-2, %eax
        je done
        cmp $1, %eax
        fail_if a
        jmp done
