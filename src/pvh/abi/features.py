"""XENFEAT_*: bit numbers and names of the features a kernel and Xen tell each other.

Source: xen/include/public/features.h; the names libelf knows in a FEATURES string: libelf-dominfo.c.
"""

WRITABLE_PAGE_TABLES = 0
WRITABLE_DESCRIPTOR_TABLES = 1
AUTO_TRANSLATED_PHYSMAP = 2
SUPERVISOR_MODE_KERNEL = 3
PAE_PGDIR_ABOVE_4GB = 4
MMU_PT_UPDATE_PRESERVE_AD = 5
HIGHMEM_ASSIST = 6
GNTTAB_MAP_AVAIL_BITS = 7
HVM_CALLBACK_VECTOR = 8
HVM_SAFE_PVCLOCK = 9
HVM_PIRQS = 10
DOM0 = 11
GRANT_MAP_IDENTITY = 12
MEMORY_OP_VNODE_SUPPORTED = 13
ARM_SMCCC_SUPPORTED = 14
LINUX_RSDP_UNRESTRICTED = 15
NOT_DIRECT_MAPPED = 16
DIRECT_MAPPED = 17
RUNSTATE_PHYS_AREA = 18
VCPU_TIME_PHYS_AREA = 19
DM_MSIX_ALL_WRITES = 20

NAMES = {
    WRITABLE_PAGE_TABLES: "writable_page_tables",
    WRITABLE_DESCRIPTOR_TABLES: "writable_descriptor_tables",
    AUTO_TRANSLATED_PHYSMAP: "auto_translated_physmap",
    SUPERVISOR_MODE_KERNEL: "supervisor_mode_kernel",
    PAE_PGDIR_ABOVE_4GB: "pae_pgdir_above_4gb",
    MMU_PT_UPDATE_PRESERVE_AD: "mmu_pt_update_preserve_ad",
    HIGHMEM_ASSIST: "highmem_assist",
    GNTTAB_MAP_AVAIL_BITS: "gnttab_map_avail_bits",
    HVM_CALLBACK_VECTOR: "hvm_callback_vector",
    HVM_SAFE_PVCLOCK: "hvm_safe_pvclock",
    HVM_PIRQS: "hvm_pirqs",
    DOM0: "dom0",
    GRANT_MAP_IDENTITY: "grant_map_identity",
    MEMORY_OP_VNODE_SUPPORTED: "memory_op_vnode_supported",
    ARM_SMCCC_SUPPORTED: "ARM_SMCCC_supported",
    LINUX_RSDP_UNRESTRICTED: "linux_rsdp_unrestricted",
    NOT_DIRECT_MAPPED: "not_direct_mapped",
    DIRECT_MAPPED: "direct_mapped",
    RUNSTATE_PHYS_AREA: "runstate_phys_area",
    VCPU_TIME_PHYS_AREA: "vcpu_time_phys_area",
    DM_MSIX_ALL_WRITES: "dm_msix_all_writes",
}

# The only names libelf finds in a FEATURES string; any other is unknown to it, though it has a number.
PARSED = (
    WRITABLE_PAGE_TABLES,
    WRITABLE_DESCRIPTOR_TABLES,
    AUTO_TRANSLATED_PHYSMAP,
    SUPERVISOR_MODE_KERNEL,
    PAE_PGDIR_ABOVE_4GB,
    HVM_CALLBACK_VECTOR,
    DOM0,
)

# libelf copies each token of a FEATURES string into a buffer of 64 bytes, NUL included.
MAX_TOKEN = 63
