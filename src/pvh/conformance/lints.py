"""Lints: what a file's headers, notes and first instructions say of the clauses it keeps, before anything is booted.

A lint is a violation only where the ABI's text asks for more than Xen's loader does; what merely has other loaders
stumble is a note. kernel/oddities.py and kernel/verdict.py have most of the facts.
"""

from __future__ import annotations

from pvh.abi import elfnote, features
from pvh.conformance.finding import Finding, Instruction
from pvh.hints import TYPE_CHECKING
from pvh.kernel import elf
from pvh.kernel.features import names
from pvh.plan import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pvh.conformance.finding import Grade
    from pvh.kernel import record
    from pvh.kernel.record import Kernel, Segment
    from pvh.plan.options import BootOptions

    Lint = Callable[[Kernel, BootOptions], Iterator[Finding]]

# Codes of kernel/oddities.py, kernel/notes.py and kernel/verdict.py: the clause, and whether it is broken.
_KNOWN: dict[str, tuple[str, Grade]] = {
    "note-unknown": ("file.note-value", "note"),
    "note-size": ("file.note-value", "violation"),
    "note-string": ("file.note-value", "violation"),
    "note-cut": ("file.note-padding", "violation"),
    "entry-truncated": ("file.note-value", "violation"),
    "string-unterminated": ("file.note-value", "violation"),
    "feature-ignored": ("file.features", "note"),
    "feature-unknown": ("file.features", "violation"),
    "feature-unsupported": ("file.features", "violation"),
    "dom0-required": ("file.features", "violation"),
    "notes-in-sections": ("file.note-segment", "violation"),
    "entry-at-end": ("file.entry-executable", "violation"),
    "entry-outside": ("file.entry-executable", "violation"),
    "start-unaligned": ("file.paddr", "violation"),
}
# Bits that only PV guests have a use for: a PVH guest that requires one is refused where Xen lacks it, for nothing.
_OF_PV = (features.WRITABLE_PAGE_TABLES, features.WRITABLE_DESCRIPTOR_TABLES, features.SUPERVISOR_MODE_KERNEL,
          features.PAE_PGDIR_ABOVE_4GB)  # fmt: skip
_UPPER_HALF = 0x8000_0000
_LOOK = 64  # bytes of code at the entry
_FIRST = 6  # instructions of it
_LINUX_CMDLINE = 2048
# Behind REX.W: what 64-bit code begins with. Without, 0x48 to 0x4f are DEC, which nobody needs six instructions early.
_REX_FOLLOWERS = frozenset(b"\x01\x03\x29\x2b\x31\x33\x63\x81\x83\x85\x89\x8b\x8d\xb8\xb9\xba\xbb\xbc\xbd\xbe\xbf\xc7")
_ENDBR64 = b"\xf3\x0f\x1e\xfa"


def lint(kernel: Kernel, options: BootOptions) -> tuple[Finding, ...]:
    """Return what is found, in the order of the rules."""
    return tuple(finding for rule in RULES for finding in rule(kernel, options))


def _found(clause: str, what: str, grade: Grade = "violation", at: Instruction | None = None) -> Finding:
    return Finding(clause, what, grade, "file", at)


def known(kernel: Kernel, _options: BootOptions) -> Iterator[Finding]:
    """Yield what the reader found odd or refuses, where it is a matter of a clause."""
    for odd in (*kernel.problems, *kernel.warnings):
        if odd.code in _KNOWN:
            clause, grade = _KNOWN[odd.code]
            yield _found(clause, f"the file {odd.cause}{_detail(odd)}", grade)


def _detail(odd: record.Finding) -> str:
    said = "; ".join(f"{label} {text}" for label, text in (("found", odd.found), ("wanted", odd.wanted)) if text)
    return f" ({said})" if said else ""


def repeated(kernel: Kernel, _options: BootOptions) -> Iterator[Finding]:
    """Of several notes of a number the last counts for Xen, and the first for others: it matters if they differ."""
    first: dict[int, record.Note] = {}
    for note in kernel.notes:
        if note.owner != elfnote.OWNER or note.type in (elfnote.FEATURES, elfnote.SUPPORTED_FEATURES):
            continue
        before = first.setdefault(note.type, note)
        if before is not note:
            grade: Grade = "violation" if before.value != note.value else "note"
            both = f"found {before.value!r} at {before.offset:#x}, {note.value!r} at {note.offset:#x}"
            yield _found("file.note-order", f"note {note.name} stands twice, and Xen takes the last ({both})", grade)


def virtual_addresses(kernel: Kernel, _options: BootOptions) -> Iterator[Finding]:
    """A p_paddr in the upper half that equals p_vaddr was never given: linkers copy it."""
    for segment in kernel.loads:
        if segment.paddr == segment.vaddr and segment.paddr >= _UPPER_HALF:
            yield _found(
                "file.paddr",
                f"segment {segment.index} has its virtual address as p_paddr, {segment.paddr:#x}: Xen puts it there"
                " (give AT(...) in the linker script)",
            )


def too_large(kernel: Kernel, options: BootOptions) -> Iterator[Finding]:
    """The image needs RAM below 4 GiB up to its end, .bss too."""
    low_end = min(options.memory, layout.LOW_RAM_END)
    if kernel.loads and kernel.end > low_end:
        yield _found(
            "file.image-fits", f"the image ends at {kernel.end:#x}, and RAM below 4 GiB at {low_end:#x}: its last"
            f" segment has {kernel.loads[-1].memsz - kernel.loads[-1].filesz:#x} bytes beyond those in the file"
        )  # fmt: skip


def note_segments(kernel: Kernel, _options: BootOptions) -> Iterator[Finding]:
    """What other loaders make of the note segment: they pad by p_align, or look at its address."""
    for segment in kernel.segments:
        if segment.type != elf.PT_NOTE or not _holds_xen_notes(kernel, segment):
            continue
        if segment.align != 4:
            yield _found(
                "file.note-padding", f"segment {segment.index}, with Xen's notes, has p_align {segment.align}: loaders"
                " that pad by it, as QEMU does, read other notes", "note",
            )  # fmt: skip
        if segment.paddr >= layout.LOW_RAM_END:
            yield _found(
                "file.note-address", f"segment {segment.index}, with Xen's notes, has p_paddr {segment.paddr:#x}, where"
                " no guest has RAM: a loader that looks for notes in memory finds none", "note",
            )  # fmt: skip


def _holds_xen_notes(kernel: Kernel, segment: Segment) -> bool:
    return any(note.owner == elfnote.OWNER and note.where == f"segment {segment.index}" for note in kernel.notes)


def required_features(kernel: Kernel, _options: BootOptions) -> Iterator[Finding]:
    """A `!` that makes no sense for PVH may have Xen refuse the kernel for nothing."""
    needless = kernel.features.required & sum(1 << bit for bit in _OF_PV)
    if needless:
        yield _found("file.features", f"FEATURES requires {', '.join(names(needless))}, which only PV guests have a use"
                     " for", "note")  # fmt: skip


def entry(kernel: Kernel, _options: BootOptions) -> Iterator[Finding]:
    """What stands at the entry is code, is there, and is 32-bit code."""
    segment = next((s for s in reversed(kernel.loads) if s.paddr <= (kernel.entry or 0) < s.end), None)
    if kernel.entry is None or segment is None:
        if kernel.entry is not None and kernel.start <= kernel.entry < kernel.end:
            yield _found("file.entry-executable", f"the entry {kernel.entry:#x} lies between segments")
        return
    if not segment.flags & 1:
        yield _found("file.entry-executable", f"the entry {kernel.entry:#x} lies in segment {segment.index}, which is"
                     " not marked executable", "note")  # fmt: skip
    offset = kernel.entry - segment.paddr
    code = kernel.source.read(segment.offset + offset, max(0, min(_LOOK, segment.filesz - offset)))
    wrong = _not_32_bit(code, kernel.entry)
    if wrong:
        yield _found("file.entry-code", wrong, at=Instruction(kernel.entry, code=code[:15]))


def _not_32_bit(code: bytes, address: int) -> str:
    """Return why bytes cannot be where 32-bit execution begins; "" if they may well be."""
    if not any(code):
        return f"there is nothing at the entry {address:#x}: " + ("zeroes" if code else "no bytes of the file")
    if code.startswith(_ENDBR64):
        return f"the code at the entry {address:#x} is 64-bit code: it begins with ENDBR64"
    try:
        import capstone  # not every installation has it
    except ImportError:
        return ""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    decoder.detail = True
    done = 0
    for instruction, _ in zip(decoder.disasm(code, address), range(_FIRST), strict=False):
        at = instruction.address - address
        if 0x48 <= code[at] <= 0x4F and at + 1 < len(code) and code[at + 1] in _REX_FOLLOWERS:
            return f"the code at {instruction.address:#x}, {at} bytes behind the entry, is 64-bit code: a REX.W prefix"
        if capstone.CS_GRP_JUMP in instruction.groups or capstone.CS_GRP_RET in instruction.groups:
            return ""
        done = at + instruction.size
    return "" if done else f"the bytes at the entry {address:#x} are no instruction: {code[:8].hex()}"


def linux_command_line(kernel: Kernel, options: BootOptions) -> Iterator[Finding]:
    """Linux reads so much and drops the rest."""
    length = len(options.cmdline.encode("utf-8", "surrogateescape"))
    if kernel.linux_version and length >= _LINUX_CMDLINE:
        yield _found(
            "cmdline.long", f"the command line has {length} bytes; Linux takes {_LINUX_CMDLINE - 1} of them", "note"
        )


RULES: tuple[Lint, ...] = (
    known,
    repeated,
    virtual_addresses,
    too_large,
    note_segments,
    required_features,
    entry,
    linux_command_line,
)
