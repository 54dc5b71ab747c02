# Deliberately wrong kernels, and their twins: clauses of start_info and of what it points to (see wrong.inc).
        .include "pvh.inc"
        .include "wrong.inc"
        pvh_entry wrong_version_future

        .set VERSION, 4                 # offsets in start_info
        .set NR_MODULES, 12
        .set MODLIST, 16
        .set CMDLINE, 24
        .set RSDP, 32
        .set MEMMAP, 40
        .set ENTRIES, 48

# End where there is no memory map.
        .macro need_map
        cmpl $0, VERSION(%ebx)
        je done
        cmpl $0, ENTRIES(%ebx)
        je done
        .endm

# start_info.last-bytes: a field of a later version, without looking at the version.
        kernel wrong_start_info_last_bytes
        culprit start_info_last_bytes
        cmpl $0, 56(%ebx)
        jne done
        jmp done
        kernel right_start_info_last_bytes
        cld                             # copies too much, and uses no more than it may
        mov %ebx, %esi
        mov $scratch, %edi
        mov $16, %ecx
        rep movsl
        cmpl $MAGIC, scratch
        fail_if ne
        jmp done

# version.future: refuses what it does not know.
        kernel wrong_version_future
        culprit version_future
        cmpl $1, VERSION(%ebx)
        ja give_up
        jmp done
        kernel right_version_future
        cmpl $1, VERSION(%ebx)
        jmp done

# memmap.v0-absent: follows memmap_paddr in every version.
        kernel wrong_memmap_v0_absent
        mov MEMMAP(%ebx), %esi
        culprit memmap_v0_absent
        mov (%esi), %eax
        jmp done
        kernel right_memmap_v0_absent
        need_map
        mov MEMMAP(%ebx), %esi
        mov (%esi), %eax
        jmp done

# memmap.empty: takes the first entry, whether there is one or not.
        kernel wrong_memmap_empty
        cmpl $0, VERSION(%ebx)
        je done
        mov MEMMAP(%ebx), %esi
        culprit memmap_empty
        cmpl $1, 16(%esi)
        jne give_up
        jmp done
        kernel right_memmap_empty
        need_map
        mov MEMMAP(%ebx), %esi
        mov 16(%esi), %eax
        cmp $1, %eax
        jmp done

# memmap.count: looks for an entry of type 0 behind the last.
        kernel wrong_memmap_count
        need_map
        mov MEMMAP(%ebx), %esi
1:
        culprit memmap_count
        cmpl $0, 16(%esi)
        je done
        add $24, %esi
        cmp $end + (1 << 20), %esi
        jb 1b
        jmp give_up
        kernel right_memmap_count
        need_map
        mov MEMMAP(%ebx), %esi
        mov ENTRIES(%ebx), %ecx
        test %ecx, %ecx
        jz done
1:      mov 16(%esi), %eax
        add $24, %esi
        loop 1b
        jmp done

# memmap.order: gives up where an entry lies below the one before.
        kernel wrong_memmap_order
        need_map
        mov MEMMAP(%ebx), %esi
        mov ENTRIES(%ebx), %ecx
        xor %eax, %eax
        xor %edx, %edx
        test %ecx, %ecx
        jz done
1:      cmp %edx, 4(%esi)
        ja 2f
        jb give_up
        culprit memmap_order
        cmp %eax, (%esi)
        jb give_up
2:      mov (%esi), %eax
        mov 4(%esi), %edx
        add $24, %esi
        loop 1b
        jmp done
        kernel right_memmap_order
        jmp right_memmap_count

# memmap.holes: takes all memory below the end of RAM (below 4 GiB) for RAM, and tries it a page in every 64 KiB, from
# 64 MiB on.
        kernel wrong_memmap_holes
        need_map
        mov MEMMAP(%ebx), %esi
        mov ENTRIES(%ebx), %ecx
        xor %edi, %edi
        test %ecx, %ecx
        jz done
1:      cmpl $1, 16(%esi)
        jne 2f
        cmpl $0, 4(%esi)
        jne 2f
        mov (%esi), %eax
        add 8(%esi), %eax
        cmp %edi, %eax
        jbe 2f
        mov %eax, %edi
2:      add $24, %esi
        loop 1b
        mov $64 << 20, %eax
3:      cmp %edi, %eax
        jae done
        mov (%eax), %edx
        movl $MAGIC, (%eax)
        culprit memmap_holes
        cmpl $MAGIC, (%eax)
        jne give_up
        mov %edx, (%eax)
        add $0x10000, %eax
        jmp 3b
        kernel right_memmap_holes
        jmp right_memmap_count

# memmap.zero-size: divides by the size.
        kernel wrong_memmap_zero_size
        need_map
        mov MEMMAP(%ebx), %esi
        mov ENTRIES(%ebx), %edi
        test %edi, %edi
        jz done
1:      mov 8(%esi), %ecx
        or 12(%esi), %ecx
        mov $1 << 20, %eax
        xor %edx, %edx
        culprit memmap_zero_size
        div %ecx
        add $24, %esi
        dec %edi
        jnz 1b
        jmp done
        kernel right_memmap_zero_size
        jmp right_memmap_count

# memmap.types: gives up on a type that it does not know.
        kernel wrong_memmap_types
        need_map
        mov MEMMAP(%ebx), %esi
        mov ENTRIES(%ebx), %ecx
        test %ecx, %ecx
        jz done
1:
        culprit memmap_types
        cmpl $7, 16(%esi)
        ja give_up
        add $24, %esi
        loop 1b
        jmp done
        kernel right_memmap_types
        jmp right_memmap_count

# cmdline.absent: reads it in any case.
        kernel wrong_cmdline_absent
        mov CMDLINE(%ebx), %esi
        culprit cmdline_absent
        cmpb $0, (%esi)
        je done
        jmp done
        kernel right_cmdline_absent
        mov CMDLINE(%ebx), %esi
        test %esi, %esi
        jz done
        cmpb $0, (%esi)
        je done
        jmp done

# cmdline.long: 128 bytes must do.
        kernel wrong_cmdline_long
        mov CMDLINE(%ebx), %esi
        test %esi, %esi
        jz done
        mov $128, %ecx
1:      cmpb $0, (%esi)
        je done
        inc %esi
        culprit cmdline_long
        loop 1b
        jmp give_up
        kernel right_cmdline_long
        mov CMDLINE(%ebx), %esi
        test %esi, %esi
        jz done
1:      cmpb $0, (%esi)
        je done
        inc %esi
        jmp 1b

# cmdline.long: looks for a word behind the NUL.
        kernel wrong_cmdline_long__behind
        mov CMDLINE(%ebx), %esi
        test %esi, %esi
        jz done
        mov $8100, %ecx
1:
        culprit cmdline_long__behind
        cmpb $'?', (%esi)
        je done
        inc %esi
        loop 1b
        jmp done

# modules.absent: takes an initrd for granted.
        kernel wrong_modules_absent
        mov MODLIST(%ebx), %esi
        culprit modules_absent
        mov (%esi), %eax
        jmp done
        kernel right_modules_absent
        cmpl $0, NR_MODULES(%ebx)
        je done
        mov MODLIST(%ebx), %esi
        mov (%esi), %eax
        jmp done

# modules.count: reads a second module unasked.
        kernel wrong_modules_count
        mov MODLIST(%ebx), %esi
        test %esi, %esi
        jz done
        mov 32(%esi), %edi
        culprit modules_count
        mov (%edi), %eax
        jmp done
        kernel right_modules_count
        cmpl $2, NR_MODULES(%ebx)
        jb done
        mov MODLIST(%ebx), %esi
        mov 32(%esi), %edi
        mov (%edi), %eax
        jmp done

# modules.cmdline-absent: reads a module's command line in any case.
        kernel wrong_modules_cmdline_absent
        cmpl $0, NR_MODULES(%ebx)
        je done
        mov MODLIST(%ebx), %esi
        mov 16(%esi), %edi
        culprit modules_cmdline_absent
        cmpb $0, (%edi)
        je done
        jmp done
        kernel right_modules_cmdline_absent
        cmpl $0, NR_MODULES(%ebx)
        je done
        mov MODLIST(%ebx), %esi
        mov 16(%esi), %edi
        test %edi, %edi
        jz done
        cmpb $0, (%edi)
        jmp done

# rsdp.absent: follows it in any case.
        kernel wrong_rsdp_absent
        mov RSDP(%ebx), %esi
        culprit rsdp_absent
        cmpl $0x20445352, (%esi)
        jne done
        jmp done
        kernel right_rsdp_absent
        mov RSDP(%ebx), %esi
        test %esi, %esi
        jz done
        cmpl $0x20445352, (%esi)
        fail_if ne
        jmp done
