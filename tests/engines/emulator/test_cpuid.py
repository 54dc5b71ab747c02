"""CPUID offers what the emulated processor executes, and the guest reads what it was given."""

from __future__ import annotations

import pytest

from engines.emulator.harness import CODE0, HANDLER, Ran, engine, gate64, image64, run
from engines.flat import flat_image
from pvh.abi import x86
from pvh.engines.emulator.cpuid import CpuidLookup, faithful_table
from pvh.engines.engine import CpuidEntry
from pvh.engines.exits import Exit, Halt, PortOut

OUT = "out %al, $0xf4"


def leaf(number: int) -> CpuidEntry:
    (entry,) = (entry for entry in faithful_table() if entry.leaf == number)
    return entry


def execute(code: str) -> Ran:
    """Run 64-bit code with SSE enabled; RAX is the answer."""
    enable = "mov %cr4,%rax; or $0x10600,%rax; mov %rax,%cr4; mov $0x300000,%rsi; xor %eax,%eax;"
    return run(image64(f"{enable} {code}; {OUT}", {x86.UD: gate64(CODE0, HANDLER)}))


OFFERED = [
    ("1.edx", 0, "fld1; fistpl (%rsi); mov (%rsi),%eax", 1),
    ("1.edx", 4, "rdtsc; xor %eax,%eax", 0),
    ("1.edx", 8, "xor %edx,%edx; mov $5,%ebx; xor %ecx,%ecx; cmpxchg8b (%rsi); mov (%rsi),%eax", 5),
    ("1.edx", 15, "mov $7,%ebx; cmp %eax,%eax; cmove %ebx,%eax", 7),
    ("1.edx", 19, "clflush (%rsi)", 0),
    ("1.edx", 23, "mov $9,%ebx; movd %ebx,%mm0; paddd %mm0,%mm0; movd %mm0,%eax; emms", 18),
    ("1.edx", 24, "fxsave (%rsi); fxrstor (%rsi); movzwl (%rsi),%eax", 0x40),
    ("1.edx", 25, "sfence; stmxcsr (%rsi); mov (%rsi),%eax", 0x1F80),
    ("1.edx", 26, "mov $9,%ebx; movd %ebx,%xmm0; paddq %xmm0,%xmm0; movd %xmm0,%eax", 18),
    ("1.ecx", 0, "lddqu (%rsi),%xmm0; haddps %xmm0,%xmm0; movd %xmm0,%eax", 0),
    ("1.ecx", 1, "mov $3,%ebx; movd %ebx,%xmm0; pclmulqdq $0,%xmm0,%xmm0; movd %xmm0,%eax", 5),
    ("1.ecx", 9, "mov $-3,%ebx; movd %ebx,%xmm0; pabsd %xmm0,%xmm0; movd %xmm0,%eax", 3),
    ("1.ecx", 13, "xor %edx,%edx; mov $5,%ebx; xor %ecx,%ecx; lock cmpxchg16b (%rsi); mov (%rsi),%eax", 5),
    ("1.ecx", 19, "mov $6,%ebx; pinsrd $1,%ebx,%xmm0; pextrd $1,%xmm0,%eax", 6),
    ("1.ecx", 20, "mov $0x61,%bl; crc32b %bl,%eax", 0x93AD1061),
    ("1.ecx", 22, "movl $0x01020304,(%rsi); movbe (%rsi),%eax", 0x04030201),
    ("1.ecx", 23, "mov $0xff0f,%ebx; popcnt %ebx,%eax", 12),
    ("1.ecx", 25, "pxor %xmm0,%xmm0; aesenc %xmm0,%xmm0; movd %xmm0,%eax", 0x63636363),
    ("1.ecx", 30, "rdrand %ebx; setc %al", 1),
    ("7.ebx", 0, "mov $0x1234,%ebx; wrfsbase %rbx; rdfsbase %rax", 0x1234),
    ("7.ebx", 3, "mov $0xf0,%ebx; mov $0x3c,%ecx; andn %ecx,%ebx,%eax", 0x0C),
    ("7.ebx", 8, "mov $0xabcd,%ebx; mov $0xff00,%ecx; pext %ecx,%ebx,%eax", 0xAB),
    ("7.ebx", 18, "rdseed %ebx; setc %al", 1),
    ("7.ebx", 19, "mov $1,%eax; mov $2,%ebx; clc; adcx %ebx,%eax", 3),
    ("7.ebx", 20, "stac; clac", 0),
    ("7.ebx", 23, "clflushopt (%rsi)", 0),
    ("0x80000001.edx", 22, "pmaxub %mm0,%mm0; emms", 0),
    ("0x80000001.edx", 27, "mov $0xc0000103,%ecx; mov $77,%eax; xor %edx,%edx; wrmsr; rdtscp; mov %ecx,%eax", 77),
    ("0x80000001.ecx", 0, "mov $0x100,%eax; sahf; lahf; and $0x100,%eax", 0x100),
    ("0x80000001.ecx", 5, "mov $0x10,%ebx; lzcnt %ebx,%eax", 27),
    ("0x80000001.ecx", 6, "mov $0xff00,%ebx; movd %ebx,%xmm0; extrq $8,$8,%xmm0; movd %xmm0,%eax", 0xFF),
    ("0x80000001.ecx", 8, "prefetchw (%rsi)", 0),
]


@pytest.mark.parametrize(("where", "bit", "code", "answer"), OFFERED, ids=[f"{w}[{b}]" for w, b, _, _ in OFFERED])
def test_an_offered_feature_works(where: str, bit: int, code: str, answer: int) -> None:
    number, register = where.split(".")
    assert getattr(leaf(int(number, 0)), register) >> bit & 1, "not offered: no need to test it"
    ran = execute(code)
    assert ran.state.rip < HANDLER, "#UD"
    assert ran.state.gprs[0] & 0xFFFFFFFF == answer


@pytest.mark.parametrize(
    ("where", "bits"),
    [
        ("1.ecx", (3, 5, 12, 17, 21, 24, 26, 27, 28, 29)),
        ("7.ebx", (5, 10, 16)),
        ("7.ecx", (16,)),
        ("0x80000001.ecx", (2,)),
    ],
)
def test_what_it_cannot_is_not_offered(where: str, bits: tuple[int, ...]) -> None:
    """MONITOR VMX FMA PCID x2APIC TSC-deadline XSAVE OSXSAVE AVX F16C; AVX2 INVPCID AVX-512 LA57; SVM."""
    number, register = where.split(".")
    assert not any(getattr(leaf(int(number, 0)), register) >> bit & 1 for bit in bits)


def test_the_guest_reads_the_table_it_was_given() -> None:
    table = (CpuidEntry(4, 1, 5, 6, 7, 8), CpuidEntry(0x40000000, None, 9, 10, 11, 12))
    code = """mov $0x4,%eax; mov $1,%ecx; cpuid; out %eax,$0x80; mov %edx,%eax; out %eax,$0x80
        mov $4,%eax; mov $2,%ecx; cpuid
        out %eax,$0x81; mov $0x40000000,%eax; mov $99,%ecx; cpuid; mov %ecx,%eax; out %eax,$0x82; hlt"""
    image = flat_image(code)
    vm = engine().open(image, (table,))
    exits: list[Exit] = []

    def sink(exit_: Exit) -> None:
        exits.append(exit_)
        if isinstance(exit_, Halt):
            vm.vcpus[0].kick()

    vm.vcpus[0].run(sink)
    vm.close()
    image.ram.close()
    assert exits[:-1] == [PortOut(0x80, 4, 5), PortOut(0x80, 4, 8), PortOut(0x81, 4, 0), PortOut(0x82, 4, 11)]


def test_an_exact_subleaf_comes_before_a_leaf_without_one() -> None:
    lookup = CpuidLookup((CpuidEntry(7, None, 1, 1, 1, 1), CpuidEntry(7, 3, 0, 0, 0, 0)))
    assert lookup.answer(7, 3) == (0, 0, 0, 0)
    assert lookup.answer(7, 4) == (1, 1, 1, 1)
    assert lookup.answer(8, 0) == (0, 0, 0, 0)


def test_the_frequency_is_one_number() -> None:
    first = engine().tsc_khz
    assert engine().tsc_khz == first
    assert 100_000 < first < 10_000_000
