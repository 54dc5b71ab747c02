"""HVM params (xen/include/public/hvm/params.h) and who may touch them (xen/arch/x86/hvm/hvm.c)."""

CALLBACK_IRQ = 0
STORE_PFN = 1
STORE_EVTCHN = 2
PAGING_RING_PFN = 27
CONSOLE_PFN = 17
CONSOLE_EVTCHN = 18
ACPI_IOPORTS_LOCATION = 19
VM86_TSS = 15
VM_GENERATION_ID_ADDR = 34
ALTP2M = 35
X87_FIP_WIDTH = 36
VM86_TSS_SIZED = 37
COUNT = 39

DEPRECATED = frozenset({4, 13, 20, 21, 22, 23, 24, 25, 26, 30})
GUEST_GET = frozenset(
    {
        CALLBACK_IRQ,
        STORE_PFN,
        STORE_EVTCHN,
        VM86_TSS,
        CONSOLE_PFN,
        CONSOLE_EVTCHN,
        ACPI_IOPORTS_LOCATION,
        VM_GENERATION_ID_ADDR,
        ALTP2M,
        X87_FIP_WIDTH,
        VM86_TSS_SIZED,
    }
)
GUEST_SET = frozenset(
    {CALLBACK_IRQ, STORE_EVTCHN, VM86_TSS, CONSOLE_EVTCHN, VM_GENERATION_ID_ADDR, X87_FIP_WIDTH, VM86_TSS_SIZED}
)
CALLBACK_VIA_TYPE_SHIFT = 56
CALLBACK_VIA_VECTOR = 2

PARAM = "<HHIQ"  # domid, pad, index, value: what hvm_op get_param and set_param take
