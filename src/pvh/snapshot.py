"""Snapshots: a guest at one moment, from which it, or any number of others, can go on.

A snapshot has guest RAM (build/frozen.py) and, as plain values (kept.py), all else: the processors with everything the
engine keeps of them, local APICs, timers, and Xen's side of the guest. It has nothing of the host: who reads the
console, what waits to be typed, traces, files.
"""

from __future__ import annotations

from pvh.abi.shared_info import Layout
from pvh.build.cpu_state import CpuState, SegmentRegister, TableRegister
from pvh.build.frozen import Frozen, freeze
from pvh.build.image import Image
from pvh.build.ram import GuestRam
from pvh.hints import TYPE_CHECKING, Any
from pvh.machine import Machine
from pvh.plan.record import Plan
from pvh.record import dataclass, field
from pvh.xen.events import Channel
from pvh.xen.runstate import Area
from pvh.xenstore.permissions import Permission
from pvh.xenstore.tree import Node
from pvh.xenstore.watches import Watch as StoreWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvh.devices.typed import Typed
    from pvh.engines.engine import Engine
    from pvh.machine import Watch

RECORDS: tuple[type[Any], ...] = (
    CpuState, SegmentRegister, TableRegister, Layout, Channel, Area, Permission, Node, StoreWatch,
)  # fmt: skip
"""Every record that a state can hold."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A guest at one moment. It costs the host the pages that are not zero, in memory, until nobody has it any more.

    plan    what the guest was built from
    engine  the name of the engine it runs on, and has to

    >>> with pvh.boot(pvh.demo_path(), pvh.BootOptions(engine="emulator"), paused=True) as guest:
    ...     moment = guest.snapshot()
    >>> moment.engine, moment.size < moment.plan.ram
    ('emulator', True)
    """

    plan: Plan
    engine: str
    ram: Frozen = field(repr=False)
    state: dict[str, Any] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of host memory that it takes: of guest RAM, what is not zero."""
        return self.ram.allocated


def take(machine: Machine) -> Snapshot:
    """Return a snapshot of a machine of which no vCPU runs; from then on it rests on the snapshot's memory."""
    state = machine.capture()
    ram = freeze(machine.image.ram)
    machine.image.ram.rest_on(ram)
    return Snapshot(machine.image.plan, machine.engine.name, ram, state)


def restore(machine: Machine, snapshot: Snapshot) -> None:
    """Have a machine, of which no vCPU runs, go on from a snapshot: one of its own, or of a guest of the same plan."""
    machine.image.ram.rest_on(snapshot.ram)
    machine.apply(snapshot.state)


def resume(
    snapshot: Snapshot,
    engine: Engine,
    console: Callable[[bytes], None],
    watch: Watch | None = None,
    typed: Typed | None = None,
) -> Machine:
    """Return a new machine that goes on from a snapshot, and shares its pages until it writes them.

    Raises EngineError when the engine or the host refuses.
    """
    plan = snapshot.plan
    ram = GuestRam(plan.backed)
    for gpa, _ in snapshot.ram.places:
        ram.add(gpa)  # where a page of Xen's had none
    image = Image(plan, ram, CpuState())
    try:
        machine = Machine(image, engine, console, watch, typed, tsc_khz=snapshot.state["tsc_khz"])
        restore(machine, snapshot)
    except BaseException:  # an entry of the boot cache may make any
        ram.close()
        raise
    return machine
