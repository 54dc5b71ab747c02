"""What `monitor` tells of a guest: start_info, hypercalls, event channels."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from pvh.abi.hypercall import NAMES
from pvh.engines.exits import Exit, Hypercall
from pvh.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from pvh.machine import Machine

_KEPT = 32  # hypercalls, the last ones


class History:
    """The hypercalls of a run, as a watch is told of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.last: deque[str] = deque(maxlen=_KEPT)

    def watch(self, vcpu: int, event: Exit, answer: int | None) -> None:
        """Take an exit."""
        if isinstance(event, Hypercall):
            name = NAMES.get(event.number, f"hypercall {event.number}")
            self.counts[name] += 1
            words = ", ".join(f"{arg:#x}" for arg in event.args)
            self.last.append(f"vCPU {vcpu}: {name}({words}) = {(answer or 0):#x}")


def _start_info(machine: Machine, _: History) -> list[str]:
    plan = machine.image.plan
    info = plan.start_info
    return [
        f"start_info at {info.paddr:#x}, {plan.options.abi}, flags {info.flags:#x}",
        f"command line at {info.cmdline_paddr:#x}: {plan.options.cmdline!r}",
        *(f"module at {module.paddr:#x}, {module.size} bytes" for module in info.modules),
        f"RSDP at {info.rsdp_paddr:#x}",
        f"memory map at {info.memmap_paddr:#x}:",
        *(f"  {entry.addr:#x}-{entry.end - 1:#x} {entry.type}" for entry in plan.memmap),
    ]


def _hypercalls(_: Machine, history: History) -> list[str]:
    counts = [f"{count:8} {name}" for name, count in history.counts.most_common()]
    return [*counts, f"the last {len(history.last)}:", *(f"  {call}" for call in history.last)]


def _events(machine: Machine, _: History) -> list[str]:
    return machine.event_channels() or ["no event channels"]


_COMMANDS: dict[str, tuple[str, Callable[[Machine, History], list[str]]]] = {
    "start_info": ("what the guest was given, and where", _start_info),
    "hypercalls": ("how many there were, and the last ones", _hypercalls),
    "events": ("event channels and their state", _events),
}


def say(machine: Machine, history: History, words: list[str]) -> str:
    """Return what a command says; without a known one, that it is none, and which there are."""
    known = _COMMANDS.get(" ".join(words))
    unknown = [] if not words or words == ["help"] else [f"there is no `monitor {' '.join(words)}`; there are"]
    listed = [*unknown, *(f"{name}: {what}" for name, (what, _) in _COMMANDS.items())]
    lines = known[1](machine, history) if known else listed
    return "".join(f"{line}\n" for line in lines)
