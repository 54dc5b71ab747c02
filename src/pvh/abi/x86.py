"""x86 architecture numbers the ABI's text speaks of (Intel SDM vol. 3, AMD APM vol. 2)."""

PAGE_SIZE = 4096
PAGE_SHIFT = 12

CR0_PE = 1 << 0
CR0_MP = 1 << 1
CR0_EM = 1 << 2
CR0_TS = 1 << 3
CR0_ET = 1 << 4
CR0_NE = 1 << 5
CR0_WP = 1 << 16
CR0_AM = 1 << 18
CR0_NW = 1 << 29
CR0_CD = 1 << 30
CR0_PG = 1 << 31

CR4_VME = 1 << 0
CR4_PVI = 1 << 1
CR4_TSD = 1 << 2
CR4_DE = 1 << 3
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_MCE = 1 << 6
CR4_PGE = 1 << 7
CR4_PCE = 1 << 8
CR4_OSFXSR = 1 << 9
CR4_OSXMMEXCPT = 1 << 10
CR4_UMIP = 1 << 11
CR4_LA57 = 1 << 12
CR4_VMXE = 1 << 13
CR4_FSGSBASE = 1 << 16
CR4_PCIDE = 1 << 17
CR4_OSXSAVE = 1 << 18
CR4_SMEP = 1 << 20
CR4_SMAP = 1 << 21
CR4_PKE = 1 << 22
CR4_CET = 1 << 23
CR4_PKS = 1 << 24
CR4_LASS = 1 << 27

EFER_SCE = 1 << 0
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
EFER_NX = 1 << 11
EFER_SVME = 1 << 12
EFER_FFXSE = 1 << 14
EFER_AIBRSE = 1 << 21

RFLAGS_CF = 1 << 0
RFLAGS_ONE = 1 << 1
RFLAGS_TF = 1 << 8
RFLAGS_IF = 1 << 9
RFLAGS_DF = 1 << 10
RFLAGS_NT = 1 << 14
RFLAGS_RF = 1 << 16
RFLAGS_VM = 1 << 17
RFLAGS_AC = 1 << 18
RFLAGS_ID = 1 << 21

MSR_TSC = 0x10
MSR_TSC_AUX = 0xC0000103
MSR_APIC_BASE = 0x1B
MSR_MTRR_CAP = 0xFE
MSR_SYSENTER_CS = 0x174
MSR_SYSENTER_ESP = 0x175
MSR_SYSENTER_EIP = 0x176
MSR_PAT = 0x277
MSR_MTRR_DEF_TYPE = 0x2FF
MTRR_WRITE_BACK = 0x806  # MTRRs enabled (bit 11), default type write-back (6)
MSR_EFER = 0xC0000080
MSR_STAR = 0xC0000081
MSR_LSTAR = 0xC0000082
MSR_CSTAR = 0xC0000083
MSR_SYSCALL_MASK = 0xC0000084
MSR_FS_BASE = 0xC0000100
MSR_GS_BASE = 0xC0000101
MSR_KERNEL_GS_BASE = 0xC0000102
MSR_VM_CR = 0xC0010114
MSR_VM_HSAVE_PA = 0xC0010117

# Segment attributes as Xen packs them ("ar"): type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11
# (xen/include/public/hvm/hvm_vcpu.h).
AR_TYPE = 0xF
AR_S = 1 << 4
AR_DPL = 3 << 5
AR_P = 1 << 7
AR_AVL = 1 << 8
AR_L = 1 << 9
AR_DB = 1 << 10
AR_G = 1 << 11

# Exception vectors
DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF, MF, AC, MC, XM = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    10,
    11,
    12,
    13,
    14,
    16,
    17,
    18,
    19,
)
