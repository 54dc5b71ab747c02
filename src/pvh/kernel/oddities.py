"""What is odd about a kernel that Xen accepts: one rule a function, each yielding findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pvh.abi import elfnote
from pvh.abi.features import MAX_TOKEN
from pvh.kernel import elf
from pvh.kernel.advice import has_xen_notes, text
from pvh.kernel.features import tokens, unknown_supported
from pvh.kernel.notes import kind_of
from pvh.kernel.record import Finding, Kernel, Note

Rule = Callable[[Kernel], Iterator[Finding]]


def _xen_notes(kernel: Kernel) -> Iterator[Note]:
    return (note for note in kernel.notes if note.owner == elfnote.OWNER)


def unknown_note(kernel: Kernel) -> Iterator[Finding]:
    """Xen logs and passes over numbers it does not know."""
    for note in _xen_notes(kernel):
        if not kind_of(note.type) and note.type not in elfnote.DUMP_NAMES:
            yield Finding(
                "note-unknown",
                "has a note that Xen does not know",
                f"note {note.type:#x}",
                note.offset,
                wanted=f"0 to {elfnote.MAX}",
            )


def integer_size(kernel: Kernel) -> Iterator[Finding]:
    """An integer of 1, 2, 4 or 8 bytes is read; any other descriptor reads as 0."""
    for note in _xen_notes(kernel):
        if kind_of(note.type) == elfnote.INTEGER and len(note.desc) not in {1, 2, 4, 8}:
            yield Finding(
                "note-size",
                f"has a note {note.name} that Xen reads as 0",
                note.name,
                note.offset,
                f"{len(note.desc)} bytes",
                "1, 2, 4 or 8",
            )


def bitmap_size(kernel: Kernel) -> Iterator[Finding]:
    """A bitmap is an array of u32; another size reads as no features."""
    for note in _xen_notes(kernel):
        if note.type == elfnote.SUPPORTED_FEATURES and len(note.desc) % 4:
            yield Finding(
                "note-size",
                "has a note SUPPORTED_FEATURES that Xen reads as 0",
                note.name,
                note.offset,
                f"{len(note.desc)} bytes",
                "a multiple of 4",
            )


def entry_truncated(kernel: Kernel) -> Iterator[Finding]:
    """Xen keeps 32 bits of PHYS32_ENTRY."""
    note = kernel.note(elfnote.PHYS32_ENTRY)
    if note and isinstance(note.value, int) and note.value >> 32:
        yield Finding(
            "entry-truncated",
            "has an entry that Xen cuts to 32 bits",
            note.name,
            note.offset,
            f"{note.value:#x}",
            "below 4 GiB",
            "give the physical address, not the virtual one",
        )


def string_unterminated(kernel: Kernel) -> Iterator[Finding]:
    """A string without a NUL in its descriptor goes on into whatever follows it."""
    for note in _xen_notes(kernel):
        if kind_of(note.type) == elfnote.STRING and isinstance(note.value, str) and len(note.value) > len(note.desc):
            yield Finding(
                "string-unterminated",
                f"has a note {note.name} whose string runs on behind it",
                note.name,
                note.offset,
                repr(note.value[:64]),
                f"a NUL within {len(note.desc)} bytes",
                "use .asciz",
            )


def repeated(kernel: Kernel) -> Iterator[Finding]:
    """The last note of a number counts; only features add up."""
    seen: set[int] = set()
    for note in _xen_notes(kernel):
        if note.type in seen and note.type not in {elfnote.FEATURES, elfnote.SUPPORTED_FEATURES}:
            yield Finding(
                "note-repeated", f"has note {note.name} more than once: the last counts", note.name, note.offset
            )
        seen.add(note.type)


def feature_passed_over(kernel: Kernel) -> Iterator[Finding]:
    """Xen passes over unknown features that are not required."""
    for note in _xen_notes(kernel):
        if note.type == elfnote.FEATURES and isinstance(note.value, str):
            for token in unknown_supported(note.value):
                cut = any(len(piece) == MAX_TOKEN for piece in tokens(note.value))
                yield Finding(
                    "feature-ignored",
                    "names a feature that Xen passes over",
                    note.name,
                    note.offset,
                    token[:64],
                    hint=f"Xen cuts names at {MAX_TOKEN} bytes" if cut else "",
                )


def notes_in_sections(kernel: Kernel) -> Iterator[Finding]:
    """Xen looks into sections when no segment has its notes; other loaders look into segments only."""
    if has_xen_notes(kernel) and all(note.where.startswith("section") for note in _xen_notes(kernel)):
        yield Finding(
            "notes-in-sections",
            "has its Xen notes in a section only, where QEMU and other loaders do not look",
            "PT_NOTE",
            found=next(_xen_notes(kernel)).where,
            wanted="a PT_NOTE segment",
            hint="put the section in a segment: PHDRS { ... note PT_NOTE FLAGS(4); }",
        )


def other_machine(kernel: Kernel) -> Iterator[Finding]:
    """Xen does not look at e_machine of a kernel with PHYS32_ENTRY."""
    if kernel.machine not in {elf.EM_386, elf.EM_X86_64}:
        yield Finding(
            "machine",
            "is not marked as an x86 file",
            "e_machine",
            18,
            str(kernel.machine),
            f"{elf.EM_386} (i386) or {elf.EM_X86_64} (x86-64)",
        )


def entry_at_end(kernel: Kernel) -> Iterator[Finding]:
    """Xen accepts an entry just behind the image, where there is nothing to run."""
    if kernel.entry is not None and kernel.loads and kernel.entry == kernel.end:
        yield Finding(
            "entry-at-end",
            "has its entry just behind its image",
            "PHYS32_ENTRY",
            found=f"{kernel.entry:#x}",
            wanted=f"below {kernel.end:#x}",
        )


def symbols_wanted(kernel: Kernel) -> Iterator[Finding]:
    """Xen appends the symbol table when BSD_SYMTAB says `yes`; this package reserves the room and leaves it zero."""
    if text(kernel, elfnote.BSD_SYMTAB) == "yes":
        yield Finding(
            "bsd-symtab",
            "asks for its symbol table behind the image: the room is kept and left zero",
            "BSD_SYMTAB",
            hint="its debugger will not know names",
        )


RULES: tuple[Rule, ...] = (
    unknown_note,
    integer_size,
    bitmap_size,
    entry_truncated,
    string_unterminated,
    repeated,
    feature_passed_over,
    notes_in_sections,
    other_machine,
    entry_at_end,
    symbols_wanted,
)


def warnings(kernel: Kernel) -> tuple[Finding, ...]:
    """Return what is odd, in the order of the rules."""
    return tuple(finding for rule in RULES for finding in rule(kernel))


def draft_c(kernel: Kernel) -> tuple[Finding, ...]:
    """Return a warning for each note that Draft C lists and the kernel lacks."""
    return tuple(
        Finding(
            "draft-c",
            f"lacks note {elfnote.KINDS[number][0]} ({number}), which Draft C lists",
            elfnote.KINDS[number][0],
            hint="the final ABI does without it",
        )
        for number in elfnote.DRAFT_C
        if kernel.note(number) is None
    )
