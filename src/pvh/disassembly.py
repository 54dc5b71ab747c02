"""Instructions of a guest, by linear address: what it executed last, and where it stands.

capstone decodes; conformance/monitor/decode.py alone imports it too. Memory is read as it stands now, through the
processor's page tables, and taken for code of the processor's present width: what the guest overwrote, unmapped or ran
in another mode since shows as it would run now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, takewhile

from pvh.build.linear import LinearFault, LinearMemory
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.build.ram import GuestRam

_MOST_LINES = 24  # of history
_MOST_OF_BLOCK = 8  # instructions
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction at a linear address; leaves: whether control may go elsewhere behind it."""

    address: int
    code: bytes
    text: str
    leaves: bool

    def __str__(self) -> str:
        return f"{self.address:#x}: {self.code.hex():<16} {self.text}"


class Disassembler:
    """Decodes guest memory as one processor sees it. Raises ImportError without capstone."""

    def __init__(self, ram: GuestRam, cpu: CpuState) -> None:
        import capstone

        self._memory = LinearMemory(ram, cpu)
        self.bits = cpu.bits
        modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, modes[cpu.bits])
        self._decoder.detail = True
        self._leaving = frozenset(
            (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET, capstone.CS_GRP_INT, capstone.CS_GRP_IRET,
             capstone.CS_GRP_BRANCH_RELATIVE)
        )  # fmt: skip

    def decode(self, address: int) -> Iterator[Instruction]:
        """Yield the instructions from an address until memory, or sense, ends; at most _BLOCK_BYTES."""
        code = self.bytes_at(address, _BLOCK_BYTES)
        for found in self._decoder.disasm(code, address):
            leaves = found.mnemonic == "hlt" or not self._leaving.isdisjoint(found.groups)
            text = f"{found.mnemonic} {found.op_str}".rstrip()
            yield Instruction(found.address, bytes(found.bytes), text, leaves)

    def bytes_at(self, address: int, size: int) -> bytes:
        """Return up to size bytes at an address, as many as are mapped."""
        try:
            return self._memory.read(address, size)
        except LinearFault as fault:
            mapped = fault.address - address
            return self._memory.read(address, mapped) if 0 < mapped < size else b""


def history(recent: tuple[int, ...], rip: int, decoder: Disassembler, name: Callable[[int], str]) -> list[str]:
    """Return lines for the last blocks executed, oldest first: each one's place, and its last instructions.

    rip is where the newest block was left, if that lies inside it. name gives a linear address a place.
    """
    parts: list[list[str]] = []
    runs = [(address, len(list(same))) for address, same in groupby(recent)]
    for back, (address, times) in enumerate(reversed(runs)):
        repeated = f" ({times} times)" if times > 1 else ""
        part = [f"{address:#x} {name(address)}{repeated}", *_block(decoder, address, rip if back == 0 else None)]
        if parts and sum(map(len, parts)) + len(part) > _MOST_LINES:
            break
        parts.append(part)
    return [line for part in reversed(parts) for line in part]


def _block(decoder: Disassembler, address: int, rip: int | None) -> list[str]:
    """Return a block's last instructions: up to rip, or to the first that may lead elsewhere."""
    found: list[Instruction] = []
    for instruction in takewhile(lambda instruction: instruction.address != rip, decoder.decode(address)):
        found.append(instruction)
        if instruction.leaves:
            break
    if not found and address != rip:
        return ["  " + _no_code(decoder, address)]
    left_out = [f"  ... {len(found) - _MOST_OF_BLOCK} more"] if len(found) > _MOST_OF_BLOCK else []
    return left_out + [f"  {instruction}" for instruction in found[-_MOST_OF_BLOCK:]]


def ahead(decoder: Disassembler, rip: int, count: int = 3) -> list[str]:
    """Return lines for the instruction at RIP and those behind it."""
    found = [str(instruction) for instruction, _ in zip(decoder.decode(rip), range(count), strict=False)]
    return found or [_no_code(decoder, rip)]


def _no_code(decoder: Disassembler, address: int) -> str:
    code = decoder.bytes_at(address, 15)
    return f"{address:#x}: {code.hex()} is no instruction" if code else f"{address:#x}: not mapped, nothing to read"
