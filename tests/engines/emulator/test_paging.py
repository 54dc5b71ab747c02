"""The engine's page walk agrees with the library's on every entry (Intel SDM vol. 3, 4.3 to 4.7)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.emulator.harness import CODE0, HANDLER, gate32, gate64, long_world, opened, protected_world
from engines.flat import CODE, assemble, flat_image
from pvh.abi import x86
from pvh.build.cpu_state import CpuState
from pvh.build.ram import GuestRam
from pvh.engines.emulator.paging import GuestFault
from pvh.engines.exits import Exit, PortOut

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 63
TABLES = 0x400000  # of the address probed: top, then one page a level
TARGET = 0x600000
LONG_ADDRESS, PAE_ADDRESS, FLAT_ADDRESS = 0x8040201000, 0x80601000, 0x80401000

flag = st.sampled_from(
    [0] * 20 + [WRITABLE, USER, NX, 1 << 12, 1 << 13, 1 << 21, 1 << 40, 1 << 51, 1 << 5, 1 << 8, LARGE]
)


def entries(levels: int, *, narrow: bool = False) -> st.SearchStrategy[tuple[int, ...]]:
    """Entries from the top: usual ones with a bit or two flipped."""
    usual = PRESENT | WRITABLE | USER | ACCESSED | DIRTY
    entry = st.tuples(flag, flag, st.sampled_from([usual, usual, usual & ~PRESENT, usual & ~ACCESSED, usual & ~DIRTY]))
    mask = 0xFFFFFFFF if narrow else 2**64 - 1
    return st.tuples(*(entry.map(lambda bits: (bits[0] ^ bits[1] ^ bits[2]) & mask) for _ in range(levels)))


def place(ram: GuestRam, address: int, bits: tuple[int, ...], size: int) -> None:
    """Write an address's chain of tables below TABLES."""
    width, shift = (9, 3) if size == 8 else (10, 2)
    for level, extra in enumerate(bits):
        left = len(bits) - 1 - level
        index = address >> 12 + width * left & (1 << width) - 1
        target = TABLES + 0x1000 * (level + 1) if left else TARGET
        if extra & LARGE and left and not (left == 2 and len(bits) == 3):
            target = TARGET & ~((1 << 12 + width * left) - 1)
        ram.write(TABLES + 0x1000 * level + (index << shift), (target ^ extra).to_bytes(size, "little"))


Outcome = tuple[tuple[int, int] | None, bytes]


def by_library(ram: GuestRam, state: CpuState, bits: int, code: str) -> Outcome:
    """Execute the access; return the vector and error code of its fault, and the tables afterwards."""
    image = flat_image(assemble(code, bits, CODE), state, ram=ram)
    with opened(image) as vm:
        vcpu = vm.vcpus[0]

        def sink(exit_: Exit) -> None:
            if isinstance(exit_, PortOut):
                vcpu.kick()

        vcpu.run(sink)
        end = vcpu.state()
        fault = None
        if not CODE <= end.rip < CODE + 64:
            fault = x86.PF, vcpu.memory.read_int(end.gprs[4], 8 if bits == 64 else 4)
        return fault, tables(ram)


def by_engine(ram: GuestRam, state: CpuState, address: int, *, write: bool) -> Outcome:
    """Walk; return the vector and error code of the fault, and the tables afterwards."""
    with opened(flat_image("nop", state, ram=ram)) as vm:
        fault = None
        try:
            vm.vcpus[0].memory.translate(address, write=write)
        except GuestFault as problem:
            fault = problem.vector, problem.error or 0
        return fault, tables(ram)


def tables(ram: GuestRam) -> bytes:
    """Return the tables of the address probed without their first entries: the identity map's, or what was stored."""
    data = bytearray(ram.read(TABLES, 0x4000) or b"")
    for at in range(0, 0x4000, 0x1000):
        data[at : at + 64] = bytes(64)
    return bytes(data)


def compare(kind: str, bits: tuple[int, ...], *, write: bool, flags: tuple[bool, bool, bool]) -> None:
    """Walk the same tables with both and compare the faults and what became of the entries."""
    wp, smap, nx = flags
    results: list[Outcome] = []
    for walk in "library", "engine":
        ram, state, address, width = world(kind)
        size = 4 if kind == "flat" else 8
        if kind == "pae":
            ram.write(TABLES + 8 * (address >> 30), (TABLES + 0x1000 | PRESENT).to_bytes(8, "little"))
            place_below(ram, address, bits)
        else:
            place(ram, address, bits, size)
        cr0 = state.cr0 & ~x86.CR0_WP | (x86.CR0_WP if wp else 0)
        cr4 = state.cr4 | (x86.CR4_SMAP if smap else 0)
        efer = state.efer & ~x86.EFER_NX | (x86.EFER_NX if nx else 0)
        state = replace(state, cr0=cr0, cr4=cr4, efer=efer)
        operand = "(%rsi)" if width == 64 else "(%esi)"
        access = f"movb $1,{operand}" if write else f"mov {operand},%al"
        code = f"mov ${address:#x},{'%rsi' if width == 64 else '%esi'}; {access}; out %al,$0xf4"
        if walk == "library":
            results.append(by_library(ram, state, width, code))
        else:
            results.append(by_engine(ram, state, address, write=write))
    assert results[0][0] == results[1][0]
    # Whether a walk that ends in a fault marks the entries it came through is the processor's choice (SDM 4.8).
    assert results[0][0] or results[0][1] == results[1][1]


def place_below(ram: GuestRam, address: int, bits: tuple[int, ...]) -> None:
    """Write page directory and page table of a PAE address."""
    large = bool(bits[0] & LARGE)
    target = TARGET if large else TABLES + 0x2000
    ram.write(TABLES + 0x1000 + 8 * (address >> 21 & 511), (target ^ bits[0]).to_bytes(8, "little"))
    ram.write(TABLES + 0x2000 + 8 * (address >> 12 & 511), (TARGET ^ bits[1]).to_bytes(8, "little"))


def world(kind: str) -> tuple[GuestRam, CpuState, int, int]:
    """Return memory, a state with paging, the address to probe and the code's width."""
    if kind == "long":
        ram, state = long_world({x86.PF: gate64(CODE0, HANDLER)})
        # A second top entry beside the identity map's.
        ram.write(0x10000 + 8 * (LONG_ADDRESS >> 39), ram.read(TABLES, 8) or b"")
        identity = ram.read(0x10000, 8) or b""
        ram.write(TABLES, identity)
        supervisor(ram, 8)
        return ram, replace(state, cr3=TABLES), LONG_ADDRESS, 64
    ram, state = protected_world({x86.PF: gate32(CODE0, HANDLER)})
    if kind == "pae":
        ram.write(0x10000, (0x11000 | 1).to_bytes(8, "little"))
        ram.write(0x11000, b"".join((page << 21 | 0xE3).to_bytes(8, "little") for page in range(4)))
        ram.write(TABLES, ram.read(0x10000, 8) or b"")
        cr4 = x86.CR4_PAE
        address = PAE_ADDRESS
    else:
        ram.write(TABLES, b"".join((page << 22 | 0xE3).to_bytes(4, "little") for page in range(4)))
        cr4 = x86.CR4_PSE
        address = FLAT_ADDRESS
    return ram, replace(state, cr0=state.cr0 | x86.CR0_PG, cr3=TABLES, cr4=cr4), address, 32


def supervisor(ram: GuestRam, size: int) -> None:
    """Make the identity map a supervisor's, so that SMAP leaves it alone."""
    for table in 0x12000, 0x13000, 0x14000:
        view = ram.view(table, 4096)
        assert view is not None
        for at in range(0, 4096, size):
            view[at] &= 0xFB


booleans = st.tuples(st.booleans(), st.booleans(), st.booleans())


@settings(max_examples=60)
@given(entries(4), st.booleans(), booleans)
def test_four_levels(bits: tuple[int, ...], write: bool, flags: tuple[bool, bool, bool]) -> None:  # noqa: FBT001
    compare("long", bits, write=write, flags=flags)


@settings(max_examples=40)
@given(entries(2), st.booleans(), booleans)
def test_physical_address_extension(bits: tuple[int, ...], write: bool, flags: tuple[bool, bool, bool]) -> None:  # noqa: FBT001
    compare("pae", bits, write=write, flags=flags)


@settings(max_examples=40)
@given(entries(2, narrow=True), st.booleans(), booleans)
def test_two_levels(bits: tuple[int, ...], write: bool, flags: tuple[bool, bool, bool]) -> None:  # noqa: FBT001
    compare("flat", bits, write=write, flags=(flags[0], flags[1], False))


@pytest.mark.parametrize("kind", ["long", "pae", "flat"])
def test_the_usual_page_translates(kind: str) -> None:
    usual = PRESENT | WRITABLE | USER
    compare(kind, (usual,) * (4 if kind == "long" else 2), write=True, flags=(True, False, True))
