"""Ask a machine that stands at a kernel's entry point through the GDB remote protocol: any kernel, any VMM with a stub.

Registers are those of the target description (GDB's manual, appendix G). QEMU's stub also takes `monitor info
registers`, which shows the hidden parts of segment registers.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

from pvh.conformance.probe.capture import Block, Capture
from pvh.conformance.probe.facts import BY_GDB, GENERAL, SELECTORS, Observation, Value, observe
from pvh.conformance.probe.vmm import monitor_facts
from pvh.errors import EngineError, UsageError
from pvh.gdb.packets import Reader, framed
from pvh.hints import TYPE_CHECKING
from pvh.record import replace

if TYPE_CHECKING:
    from pvh.kernel.record import Kernel

_PIECE = 0x400  # bytes asked for at once: stubs take at least this
_COMPARED = 1 << 16  # bytes of each segment that are compared with the file
_MOST_XML = 1 << 18
_MOST_ENTRIES, _MOST_MODULES, _MOST_TEXT = 128, 8, 1024
_MAGIC = 0x336EC578
_WANTED = frozenset(
    (
        *GENERAL,
        *("r" + name[1:] for name in GENERAL),
        *SELECTORS,
        "rip",
        "eip",
        "eflags",
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "efer",
    )
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_REG = re.compile(r"<reg\s[^>]*>")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_INCLUDE = re.compile(r'<xi:include\s+href="([\w.-]+)"')
_HIDDEN = re.compile(r"^(CS|DS|ES|SS) *=([0-9a-f]{4}) ([0-9a-f]{8,16}) ([0-9a-f]{8}) ([0-9a-f]{8})", re.MULTILINE)
_TABLE = re.compile(r"^(GDT|IDT) *= *([0-9a-f]{8,16}) ([0-9a-f]{8})", re.MULTILINE)
_DEBUG = re.compile(r"\b(DR[67])=([0-9a-f]{8,16})")


class Client:
    """A debugger's end of the protocol. address: HOST:PORT or unix:PATH. Raises UsageError where nobody listens."""

    def __init__(self, address: str, seconds: float) -> None:
        self.address = address
        self._deadline = time.monotonic() + seconds
        self._reader = Reader()
        self._waiting: list[bytes] = []
        self._socket = _connect(address)

    def close(self) -> None:
        """Leave the machine as it stands."""
        self._socket.close()

    def ask(self, packet: bytes) -> bytes:
        """Send a packet and return what is answered. Raises EngineError when time is up, or the line is cut."""
        self._send(framed(packet))
        return self.wait()

    def wait(self) -> bytes:
        """Return the next packet."""
        while not self._waiting:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise EngineError(f"{self.address}: no answer in time", hint="--timeout S waits longer")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise EngineError(f"{self.address}: {error.strerror or error}") from None
            if not data:
                raise EngineError(f"{self.address}: the stub closed the line", hint="is another debugger there?")
            for packet, answer in self._reader.take(data):
                self._send(answer)
                if packet is not None:
                    self._waiting.append(packet)
        return self._waiting.pop(0)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise EngineError(f"{self.address}: {error.strerror or error}") from None

    def memory(self, address: int, count: int) -> bytes:
        """Return memory as far as it can be read."""
        made = bytearray()
        while len(made) < count:
            size = min(_PIECE, count - len(made))
            answer = self.ask(b"m%x,%x" % (address + len(made), size))
            piece = b"" if answer.startswith(b"E") else _unhex(answer)
            made += piece[:size]
            if len(piece) < size:
                break
        return bytes(made)

    def monitor(self, command: str) -> str:
        """Return what a `monitor` command says; "" where the stub takes none."""
        said = bytearray()
        answer = self.ask(b"qRcmd," + command.encode().hex().encode())
        while answer.startswith(b"O") and answer != b"OK":
            said += _unhex(answer[1:])
            answer = self.wait()
        return said.decode(errors="replace")

    def registers(self) -> dict[str, int]:
        """Return the registers that tell something, by the names of the target description.

        One by one where the stub can: in 32-bit code QEMU's `g` has some registers shorter than it describes them.
        `g` goes first all the same: by it alone QEMU fetches them from KVM (gdbstub/gdbstub.c: handle_read_all_regs
        synchronizes the vCPU, handle_get_reg does not, 7.2 to 10.0).
        """
        layout = self._layout()
        wanted = {number: name for number, name, _ in layout if name in _WANTED}
        together = self.ask(b"g")
        answers = {name: self.ask(b"p%x" % number) for number, name in wanted.items()}
        if any(not answer or answer.startswith(b"E") for answer in answers.values()):
            return _sliced(layout, _unavailable_as_zero(together))
        return {name: int.from_bytes(_unavailable_as_zero(answer), "little") for name, answer in answers.items()}

    def _layout(self) -> list[tuple[int, str, int]]:
        """Return number, name and size in bytes of each register, in the order of `g`."""
        numbered: dict[int, tuple[str, int]] = {}
        number = 0
        for element in _REG.findall(_COMMENT.sub("", self._description("target.xml", 4))):
            fields = dict(_ATTRIBUTE.findall(element))
            number = int(fields.get("regnum", number))
            numbered[number] = (fields.get("name", ""), int(fields.get("bitsize", "0")) // 8)
            number += 1
        if not numbered:
            raise EngineError(f"{self.address}: the stub does not describe its registers (qXfer:features:read)")
        return [(key, *numbered[key]) for key in sorted(numbered)]

    def _description(self, name: str, depth: int) -> str:
        """Return a file of the target description, with what it includes in its place."""
        text = ""
        while len(text) < _MOST_XML:
            answer = self.ask(b"qXfer:features:read:%s:%x,%x" % (name.encode(), len(text), _PIECE))
            text += answer[1:].decode("latin-1")
            if not answer.startswith(b"m"):
                break
        if depth == 0:
            return text
        return _INCLUDE.sub(lambda found: self._description(found.group(1), depth - 1), text)


def _sliced(layout: list[tuple[int, str, int]], values: bytes) -> dict[str, int]:
    """Return the registers that tell something, out of the answer to `g`."""
    made: dict[str, int] = {}
    at = 0
    for _, name, size in layout:
        if at + size <= len(values) and name in _WANTED:
            made[name] = int.from_bytes(values[at : at + size], "little")
        at += size
    return made


def _connect(address: str) -> socket.socket:
    try:
        if address.startswith("unix:"):
            made = socket.socket(socket.AF_UNIX)
            try:
                made.connect(address.removeprefix("unix:"))
            except OSError:
                made.close()
                raise
            return made
        host, _, port = address.rpartition(":")
        if not port.isascii() or not port.isdigit():
            raise UsageError("--gdb: no address of a stub", found=address, wanted="HOST:PORT or unix:PATH")
        return socket.create_connection((host or "localhost", int(port)), 10)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = "start the VMM stopped, with its stub on: qemu-system-x86_64 -S -gdb tcp::1234 ..."
        raise UsageError(f"--gdb: nobody to talk to at {address}: {reason}", hint=hint) from None


def _unhex(digits: bytes) -> bytes:
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _unavailable_as_zero(digits: bytes) -> bytes:
    return _unhex(digits.replace(b"x", b"0"))


def probe_by_gdb(address: str, kernel: Kernel, seconds: float) -> Observation:
    """Let a stopped machine run to the kernel's entry point and say what it has there; or at e_entry.

    Raises UsageError where nobody listens or the kernel has no entry, EngineError when the entry is not reached.
    """
    if kernel.entry is None:
        raise UsageError("this kernel has no PHYS32_ENTRY to stop at", path=kernel.path)
    client = Client(address, seconds)
    try:
        registers, stray = _at_entry(client, kernel, kernel.entry)
        hidden = _hidden(client.monitor("info registers"))
        facts = {**_facts(registers), **hidden, **dict(_compared(client, kernel))}
        if stray is not None:
            facts["eip.offset"] = _pc(registers) - kernel.entry
        blocks = tuple(_blocks(client, registers.get("rbx", registers.get("ebx", 0)) & 0xFFFFFFFF))
    finally:
        client.close()
    seen = observe(Capture(blocks, 1, stray=bool(stray)), address, BY_GDB)
    return replace(seen, facts={**facts, **seen.facts})


def _at_entry(client: Client, kernel: Kernel, entry: int) -> tuple[dict[str, int], bool | None]:
    """Return the registers where the machine enters, and whether that is e_entry; None: e_entry was not watched.

    By a breakpoint at the entry point alone nobody would know what the machine executed of the kernel before it.
    """
    client.ask(b"qSupported:xmlRegisters=i386")
    client.ask(b"?")
    registers = client.registers()
    if _pc(registers) == entry:
        return registers, False
    inside = any(load.paddr <= kernel.e_entry < load.end for load in kernel.loads)
    other = kernel.e_entry if inside and kernel.e_entry != entry else None
    kind = _breakpoint(client, entry)
    if kind is None:
        raise EngineError(f"{client.address}: the stub sets no breakpoint at {entry:#x}")
    kinds = {entry: kind, other: _breakpoint(client, other) if other is not None else None}
    client.ask(b"c")
    for place, set_ in kinds.items():
        if place is not None and set_ is not None:
            client.ask(b"z%s,%x,1" % (set_, place))
    registers = client.registers()
    if _pc(registers) not in kinds:
        raise EngineError(f"{client.address}: the machine stopped elsewhere", found=f"{_pc(registers):#x}",
                          wanted=f"the entry point {entry:#x}")  # fmt: skip
    watched = other is None or kinds[other] is not None
    return registers, _pc(registers) == other if watched else None


def _breakpoint(client: Client, place: int) -> bytes | None:
    """Set a breakpoint, in hardware if that can be: loading the kernel undoes no such. Return its kind."""
    return next((kind for kind in (b"1", b"0") if client.ask(b"Z%s,%x,1" % (kind, place)) == b"OK"), None)


def _pc(registers: dict[str, int]) -> int:
    return registers.get("rip", registers.get("eip", 0))


def _facts(registers: dict[str, int]) -> dict[str, Value]:
    made: dict[str, Value] = {}
    for name in GENERAL:
        value = registers.get("r" + name[1:], registers.get(name))
        if value is not None:
            made[name] = value & 0xFFFFFFFF
    for name in (*SELECTORS, "eflags", "cr0", "cr2", "cr3", "cr4", "efer"):
        if name in registers:
            made[name] = registers[name]
    return made


def _hidden(said: str) -> dict[str, Value]:
    """Return what QEMU's monitor shows of hidden parts (target/i386/cpu-dump.c)."""
    made = monitor_facts(said)
    for name, _, base, limit, flags in _HIDDEN.findall(said):
        low = name.lower()
        if low != "ds":
            made[f"{low}.base_0"] = int(int(base, 16) == 0)
        made[f"{low}.limit_4g"] = int(int(limit, 16) == 0xFFFFFFFF)
        if name in ("CS", "SS"):
            made[f"{low}.{'d' if name == 'CS' else 'b'}"] = int(flags, 16) >> 22 & 1
    for name, base, limit in _TABLE.findall(said):
        made[f"{name.lower()}r.base"] = int(base, 16)
        made[f"{name.lower()}r.limit"] = int(limit, 16)
    for name, value in _DEBUG.findall(said):
        made[name.lower()] = int(value, 16)
    return made


def _compared(client: Client, kernel: Kernel) -> Iterator[tuple[str, Value]]:
    """Compare the beginning of each segment, and of the zeroes behind it, with the file, as far as it can be read."""
    intact, nonzero = True, 0
    compared = zeroes = 0
    for load in kernel.loads:
        found = client.memory(load.paddr, min(load.filesz, _COMPARED))
        intact = intact and found == kernel.source.read(load.offset, len(found))
        compared += len(found)
        behind = client.memory(load.paddr + load.filesz, min(load.memsz - load.filesz, _COMPARED))
        nonzero += len(behind) - behind.count(0)
        zeroes += len(behind)
    if compared:
        yield "code.intact", int(intact)
    if zeroes:
        yield "bss.nonzero", nonzero


def _blocks(client: Client, where: int) -> Iterator[Block]:
    """Give what start_info leads to, as the probe kernel does."""
    info = client.memory(where, 56)
    yield Block("info", where, info)

    def field(at: int, size: int, data: bytes = info) -> int:
        return int.from_bytes(data[at : at + size], "little")

    if field(0, 4) != _MAGIC or len(info) < 56:
        return
    if field(24, 8):
        yield Block("cmdl", field(24, 8), client.memory(field(24, 8), _MOST_TEXT))
    count = min(field(12, 4), _MOST_MODULES)
    modules = client.memory(field(16, 8), 32 * count) if field(16, 8) else b""
    if modules:
        yield Block("mods", field(16, 8), modules)
    for at in range(0, len(modules) - 31, 32):
        paddr, size, cmdline = (field(at + part, 8, modules) for part in (0, 8, 16))
        yield Block("modh", paddr, client.memory(paddr, min(16, size)))
        if cmdline:
            yield Block("modc", cmdline, client.memory(cmdline, _MOST_TEXT))
    if field(4, 4) >= 1:
        yield Block("mmap", field(40, 8), client.memory(field(40, 8), 24 * min(field(48, 4), _MOST_ENTRIES)))
    if field(32, 8):
        yield Block("rsdp", field(32, 8), client.memory(field(32, 8), 36))
