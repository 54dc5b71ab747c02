"""What a kernel supports and requires, by XENFEAT number, from its FEATURES and SUPPORTED_FEATURES notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pvh.abi import elfnote, features
from pvh.kernel.record import Features, Note

_NUMBERS = {features.NAMES[number]: number for number in features.PARSED}


def tokens(text: str) -> Iterator[str]:
    """Yield the tokens of a FEATURES string: split at `|`; a longer one falls into pieces of 63 bytes.

    A token of exactly 63 fills libelf's buffer before its `|` is seen, so an empty token follows
    (libelf-dominfo.c, elf_xen_parse_features).
    """
    position = 0
    while position < len(text):
        bar = text.find("|", position, position + features.MAX_TOKEN)
        end = bar if bar >= 0 else min(len(text), position + features.MAX_TOKEN)
        yield text[position:end]
        position = bar + 1 if bar >= 0 else end


def parse_features(text: str) -> Features:
    """Return the bits of a FEATURES string: `name` is supported; `!name` is required, and supported with it.

    Unknown names leave no bit: unknown_required() and unknown_supported() list them.
    """
    supported = required = 0
    for token in tokens(text):
        number = _NUMBERS.get(token.removeprefix("!"))
        if number is not None:
            supported |= 1 << number
            required |= (1 << number) if token.startswith("!") else 0
    return Features(supported, required)


def supported_features(words: tuple[int, ...]) -> int:
    """Return the bits of a SUPPORTED_FEATURES bitmap: its first u32.

    There is one submap (XENFEAT_NR_SUBMAPS), so Xen reads no further word.
    """
    return words[0] if words else 0


def fold(notes: Iterable[Note]) -> Features:
    """Return what all the notes say together: each adds bits. Only Xen's have a text or a tuple at these numbers."""
    supported = required = 0
    for note in notes:
        if note.type == elfnote.FEATURES and isinstance(note.value, str):
            said = parse_features(note.value)
            supported |= said.supported
            required |= said.required
        if note.type == elfnote.SUPPORTED_FEATURES and isinstance(note.value, tuple):
            supported |= supported_features(note.value)
    return Features(supported, required)


def unknown_required(text: str) -> list[str]:
    """Return the tokens that make libelf reject the whole image: `!` and a name it does not know."""
    return [token for token in tokens(text) if token.startswith("!") and token[1:] not in _NUMBERS]


def unknown_supported(text: str) -> list[str]:
    """Return the tokens libelf passes over: no `!`, and a name it does not know."""
    return [token for token in tokens(text) if token and not token.startswith("!") and token not in _NUMBERS]


def names(bits: int) -> list[str]:
    """Return the names of feature bits, lowest first; a bit without a name gives `bit N`."""
    return [features.NAMES.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1]
