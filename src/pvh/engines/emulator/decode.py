"""As much instruction decoding as intercepts need: prefixes, and the operand of a move to a system register."""

from __future__ import annotations

from pvh.record import dataclass

_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3})


@dataclass(frozen=True, slots=True)
class Instruction:
    """Bytes from the opcode on, what the prefixes before it said, and how many there were."""

    code: bytes
    rex: int
    prefixes: int
    repeat: int = 0

    @property
    def register(self) -> int:
        """ModRM.rm of a two-byte opcode as a general register."""
        return self.code[2] & 7 | (self.rex & 1) << 3

    @property
    def system_register(self) -> int:
        """ModRM.reg of a two-byte opcode: a control or debug register."""
        return self.code[2] >> 3 & 7 | (self.rex & 4) << 1


def decode(code: bytes, bits: int) -> Instruction:
    """Split prefixes from an instruction. REX counts in 64-bit code and directly before the opcode only."""
    at = rex = repeat = 0
    while at < len(code):
        byte = code[at]
        if byte in _PREFIXES:
            rex = 0
            repeat = byte if byte in {0xF2, 0xF3} else repeat
        elif bits == 64 and byte & 0xF0 == 0x40:
            rex = byte
        else:
            break
        at += 1
    return Instruction(code[at:], rex, at, repeat)
