"""The emulator with an eye on which way a guest's first processor goes, block by block: an Engine for one guest.

Its time is what the guest executes, so that two runs of one image are the same, and two of images that differ in one
thing go the same way until that matters.
"""

from __future__ import annotations

from collections import deque

from pvh.conformance.fields import Fields
from pvh.conformance.monitor.cpu import Cpu
from pvh.conformance.monitor.decode import Decoder, Mem, Op, Reg
from pvh.diagnosis import Places
from pvh.engines.emulator.engine import EmulatorEngine
from pvh.engines.emulator.libunicorn import HOOK_BLOCK, HOOK_CODE, REG_GPRS, CodeHook
from pvh.engines.emulator.vm import EmulatorVm
from pvh.engines.emulator.vmcb import CODE
from pvh.hints import TYPE_CHECKING
from pvh.record import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pvh.build.image import Image
    from pvh.engines.engine import CpuidTable

_RSP = REG_GPRS[4]
_LONGEST = 15  # bytes of an instruction
_NEAR = 8  # blocks before a parting that are looked at
_MOST_SEEN = 4_000  # instructions looked at in one run
_MOST_KEPT = 64

Edge = tuple[int, int]


class Eye:
    """Told of every block that the first processor begins, by linear addresses as if the image had not been moved.

    Nothing may leave a hook: what goes wrong there is kept in `failure`.
    """

    counts = True

    def __init__(self) -> None:
        self.count = 0
        self.failure: BaseException | None = None
        self._hooks: list[int] = []

    def begin(self, vm: EmulatorVm, image: Image) -> None:
        """Look at a guest that has not run yet."""
        self._vm = vm
        self._shift = image.plan.options.variation.shift
        kernel = image.plan.kernel
        self._moved = range(kernel.start, kernel.end) if self._shift else range(0)
        if self.counts:
            self._hook(HOOK_BLOCK, self._on_block, (1, 0))
        vm.processor.handle.flush_code()  # the first block has been translated without the hook

    def end(self) -> None:
        """Look no more: the guest is over, or goes on at full speed."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            self._vm.processor.handle.unhook(hook)
        self._vm.processor.code_changed()

    def close(self) -> None:
        """Give everything back."""

    def home(self, address: int) -> int:
        """Return where an address of the image would be, had it not been moved."""
        return address - self._shift if address in self._moved else address

    def _hook(self, kind: int, told: Callable[[int, int, int, int], None], within: tuple[int, int]) -> None:
        self._hooks.append(self._vm.processor.handle.hook(kind, CodeHook(told), within=within))

    def _on_block(self, _uc: int, address: int, size: int, _data: int) -> None:
        if not self._hooks or address == CODE or not self._vm.processor.is_occupied_by(self._vm.vcpus[0]):
            return
        try:
            self.count += 1
            self.block(self.home(address), size)
        except BaseException as failure:  # noqa: BLE001 - kept, and raised by whoever made the run
            self.failure = failure
            self.end()

    def block(self, at: int, size: int) -> None:
        """Take a block that begins."""
        raise NotImplementedError


class Ways(Eye):
    """Keeps which block came behind which. A block behind itself says nothing: it may merely be begun again."""

    def __init__(self) -> None:
        super().__init__()
        self.edges: set[Edge] = set()
        self._before = 0

    def block(self, at: int, size: int) -> None:  # noqa: ARG002
        """Take a block that begins."""
        self.edges.add((self._before, at))
        self._before = at


@dataclass(frozen=True, slots=True)
class Departure:
    """Where a run goes a way that another never went.

    near   (address, size) of the blocks before, oldest first
    to     the block it goes to; None: the run ends
    count  of blocks begun when it is there
    rsp    the stack pointer then
    """

    near: tuple[Edge, ...]
    to: int | None
    count: int
    rsp: int = 0


class Departures(Eye):
    """Follows a run along known ways.

    A run that left them is back where it goes along one again and the stack is not deeper: functions that it calls
    meanwhile are known too. last is where it left them last; away says that it did not come back.
    """

    def __init__(self, known: set[Edge]) -> None:
        super().__init__()
        self._known = known
        self._before = 0
        self._near: deque[Edge] = deque(maxlen=_NEAR)
        self.last: Departure | None = None
        self.away = False

    def block(self, at: int, size: int) -> None:
        """Take a block that begins."""
        before, self._before = self._before, at
        if at == before:
            return
        if (before, at) not in self._known:
            if not self.away:
                self.away = True
                stack = self._vm.processor.handle.read(_RSP)
                self.last = Departure(tuple(self._near), at, self.count, stack)
        elif self.away and self.last and self._vm.processor.handle.read(_RSP) >= self.last.rsp:
            self.away = False
        self._near.append((at, size))

    def ended(self) -> Departure:
        """Return where the run ended, as if it had gone another way there."""
        return Departure(tuple(self._near), None, self.count + 1)


@dataclass(frozen=True, slots=True)
class Operand:
    """What an instruction reads: a register, or memory at a linear and a physical address (None: there is none)."""

    what: Reg | Mem
    value: int
    linear: int = 0
    gpa: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """An instruction that is about to be executed, and what it will read."""

    op: Op
    reads: tuple[Operand, ...]


class Look(Eye):
    """Looks at the instructions of some blocks, before `count` blocks were begun, and keeps the last.

    blocks   (address, size), as if the image had not been moved
    reached  the block that was begun as number `count`
    symbols  of the instructions kept, by their addresses; places: of the memory they read, by physical address
    """

    def __init__(self, blocks: tuple[Edge, ...], count: int | None = None) -> None:
        super().__init__()
        self._blocks = blocks
        self._until = count
        self.counts = count is not None  # a hook of every block takes most of a run's time
        self._left = _MOST_SEEN if count is None else None
        self._decoder = Decoder()
        self.seen: deque[Seen] = deque(maxlen=_MOST_SEEN if count is None else _MOST_KEPT)
        self.reached: int | None = None
        self.symbols: dict[int, str] = {}
        self.places: dict[int, str] = {}

    def begin(self, vm: EmulatorVm, image: Image) -> None:
        """Look at a guest that has not run yet."""
        self._image = image
        self._cpu = Cpu(vm)
        self._fields = Fields(image)
        super().begin(vm, image)
        for at, size in set(self._blocks):
            there = at + self._shift if at + self._shift in self._moved else at
            self._hook(HOOK_CODE, self._on_code, (there, there + size - 1))

    def close(self) -> None:
        """Name what was seen, and give everything back."""
        if self._cpu.state and self._until is not None:
            names = Places(self._image, self._cpu.state)
            self.symbols = {seen.op.address: names.symbol(seen.op.address) for seen in self.seen}
            read = {one.gpa: one.linear for seen in self.seen for one in seen.reads if one.gpa is not None}
            self.places = {gpa: self._fields.name(gpa) or names.name(linear) for gpa, linear in read.items()}
        self._cpu.close()

    def block(self, at: int, size: int) -> None:  # noqa: ARG002
        """Take a block that begins."""
        if self.count == self._until:
            self.reached = at
            self.end()

    def _on_code(self, _uc: int, address: int, _size: int, _data: int) -> None:
        far = self._until is not None and self.count < self._until - 2 * _NEAR
        if far or not self._hooks or not self._vm.processor.is_occupied_by(self._vm.vcpus[0]):
            return
        try:
            self._cpu.refresh()
            op = self._decoder.decode(self._cpu.memory(address, _LONGEST), address, self._cpu.bits)
            if op:
                self.seen.append(Seen(op, tuple(_reads(op, self._cpu))))
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    self.end()
        except BaseException as failure:  # noqa: BLE001 - kept, and raised by whoever made the run
            self.failure = failure
            self.end()


def _reads(op: Op, cpu: Cpu) -> Iterator[Operand]:
    for operand in op.reads:
        if isinstance(operand, Reg):
            yield Operand(operand, cpu.gpr(operand.index) >> operand.shift & (1 << operand.width) - 1)
        elif isinstance(operand, Mem) and op.name != "lea":
            linear = _linear(op, operand, cpu)
            value = int.from_bytes(cpu.memory(linear, operand.size), "little")
            yield Operand(operand, value, linear, cpu.physical(linear))


def _linear(op: Op, mem: Mem, cpu: Cpu) -> int:
    """Return the linear address of a memory operand."""
    offset = mem.disp + sum(cpu.gpr(index) * scale for index, scale in mem.parts) & (1 << mem.width) - 1
    based = op.bits != 64 or mem.segment in ("fs", "gs")
    base = cpu.bases.get(mem.segment or "ds", 0) if based else 0
    return offset + base & ((1 << 64) - 1 if op.bits == 64 else 0xFFFFFFFF)


class WatchedWays(EmulatorEngine):
    """An emulator for one guest, with an eye on it."""

    def __init__(self, eye: Eye) -> None:
        super().__init__(virtual=True)
        self._eye = eye

    def open(self, image: Image, cpuid: tuple[CpuidTable, ...]) -> EmulatorVm:
        """Make a guest of an image. Raises EngineError when the host refuses."""
        vm = _Vm(image, cpuid, self.layout, self.clock)
        vm.eye = self._eye
        self._eye.begin(vm, image)
        return vm


class _Vm(EmulatorVm):
    """A guest that is looked at."""

    eye: Eye | None = None

    def close(self) -> None:
        """Give everything back but the image's memory."""
        if self.eye:
            self.eye.close()
        super().close()
