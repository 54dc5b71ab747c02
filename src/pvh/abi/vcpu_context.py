"""struct vcpu_hvm_context, the argument of VCPUOP_initialise (xen/include/public/hvm/hvm_vcpu.h).

One layout for 32- and 64-bit callers: a head, then a union as long as its longer member.
"""

SIZE = 128

MODE_32B = 0
MODE_64B = 1

HEAD = "<II"  # mode, pad
UNION = 8  # its offset

# eax ecx edx ebx esp ebp esi edi, eip, eflags, cr0, cr3, cr4, pad1, efer, then of cs ds ss es tr: bases, limits, ar
X86_32 = "<8I2I3IIQ5I5I5H3H"  # the last three: pad2
# rax rcx rdx rbx rsp rbp rsi rdi, rip, rflags, cr0, cr3, cr4, efer; the eight bytes left of the union are ignored
X86_64 = "<8Q2Q3QQ"
