"""The vCPU state machine: every stage with every operation (facts/xen-abi.md, 8; xen/common/domain.c, do_vcpu_op)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import ClassVar

import pytest

from pvh.abi.hypercall import SCHED_OP, VCPU_OP
from pvh.abi.sched import SHUTDOWN_POWEROFF
from pvh.build.cpu_state import CpuState
from pvh.xen.vcpu_entry import enter, sipi_state
from xen.contexts import mode_32b, mode_64b
from xen.guest import ARG, RAM, Guest

ENOENT, EFAULT, EEXIST, EINVAL = 2, 14, 17, 22
INITIALISE, UP, DOWN, IS_UP = 0, 1, 2, 3
VECTOR = 0x9A


def initialise(guest: Guest, vcpu: int, context: bytes | None = None, caller: int = 0) -> int:
    assert guest.ram.write(ARG, context or mode_32b())
    return guest.call(VCPU_OP, INITIALISE, vcpu, ARG, vcpu=caller)


def up(guest: Guest, vcpu: int) -> int:
    return guest.call(VCPU_OP, UP, vcpu, 0)


def down(guest: Guest, vcpu: int, caller: int = 0) -> int:
    return guest.call(VCPU_OP, DOWN, vcpu, 0, vcpu=caller)


def is_up(guest: Guest, vcpu: int) -> int:
    return guest.call(VCPU_OP, IS_UP, vcpu, 0)


def init(guest: Guest, vcpu: int) -> int:
    guest.domain.apic_init(vcpu)
    return 0


def sipi(guest: Guest, vcpu: int) -> int:
    guest.domain.apic_sipi(vcpu, VECTOR)
    return 0


def halt(guest: Guest, vcpu: int) -> int:
    guest.domain.halt_for_good(vcpu)
    return 0


Operation = Callable[[Guest, int], int]

# How vCPU 1 gets into each stage; vCPU 0 stays up.
WAYS: dict[str, tuple[Operation, ...]] = {
    "created": (),
    "created by INIT": (initialise, up, init),
    "initialised": (initialise,),
    "initialised, taken down": (initialise, down),
    "up": (initialise, up),
    "up by SIPI": (sipi,),
    "down": (initialise, up, down),
    "down after HLT": (initialise, up, halt),
}
STAGES = {way: way.split(" ", maxsplit=1)[0].rstrip(",") for way in WAYS}

# stage: {operation: result, whether it is up then, what the processor did}
START, SIPI, RESUME, STOP, NOTHING = "start", "sipi", "resume", "stop", None
TABLE: dict[str, dict[Operation, tuple[int, int, str | None]]] = {
    "created": {
        initialise: (0, 0, NOTHING),
        up: (-EINVAL, 0, NOTHING),
        down: (0, 0, NOTHING),
        is_up: (0, 0, NOTHING),
        init: (0, 0, NOTHING),
        sipi: (0, 1, SIPI),
        halt: (0, 0, NOTHING),
    },
    "initialised": {
        initialise: (-EEXIST, 0, NOTHING),
        up: (0, 1, START),
        down: (0, 0, NOTHING),
        is_up: (0, 0, NOTHING),
        init: (0, 0, NOTHING),
        sipi: (0, 0, NOTHING),
        halt: (0, 0, NOTHING),
    },
    "up": {
        initialise: (-EEXIST, 1, NOTHING),
        up: (0, 1, NOTHING),
        down: (0, 0, STOP),
        is_up: (1, 1, NOTHING),
        init: (0, 0, STOP),
        sipi: (0, 1, NOTHING),
        halt: (0, 0, STOP),
    },
    "down": {
        initialise: (-EEXIST, 0, NOTHING),
        up: (0, 1, RESUME),
        down: (0, 0, NOTHING),
        is_up: (0, 0, NOTHING),
        init: (0, 0, NOTHING),
        sipi: (0, 0, NOTHING),
        halt: (0, 0, NOTHING),
    },
}
# The stage that a vCPU is in after an operation, where it is another.
AFTER: dict[tuple[str, Operation], str] = {
    ("created", initialise): "initialised",
    ("created", sipi): "up",
    ("initialised", up): "up",
    ("initialised", init): "created",
    ("up", down): "down",
    ("up", halt): "down",
    ("up", init): "created",
    ("down", up): "up",
    ("down", init): "created",
}
CASES = [(way, operation) for way in WAYS for operation in TABLE["up"]]


def reach(guest: Guest, way: str) -> None:
    for operation in WAYS[way]:
        assert operation(guest, 1) == 0
    forget(guest)


def forget(guest: Guest) -> None:
    guest.host.started.clear()
    guest.host.stopped.clear()


def flat() -> CpuState:
    from pvh.xen.vcpu_context import parse
    from xen.guest import CPUID

    context = parse(mode_32b(), CPUID)
    assert isinstance(context, CpuState)
    entered = enter(context, 40)
    assert isinstance(entered, CpuState)
    return entered


def did(guest: Guest) -> str | None:
    """What the processor was made to do."""
    names = {START: flat(), SIPI: sipi_state(VECTOR), RESUME: None}
    done = [next(name for name, state in names.items() if state == given) for _, given in guest.host.started]
    assert all(vcpu == 1 for vcpu, _ in guest.host.started)
    done += [STOP for _ in guest.host.stopped]
    assert set(guest.host.stopped) <= {1}
    assert len(done) <= 1
    return done[0] if done else None


@pytest.mark.parametrize(("way", "operation"), CASES, ids=[f"{way}-{operation.__name__}" for way, operation in CASES])
def test_every_operation_in_every_stage(guest: Guest, way: str, operation: Operation) -> None:
    """Its result, what it does, and, by trying every operation afterwards, the stage it leaves."""
    stage = STAGES[way]
    reach(guest, way)
    result, now_up, act = TABLE[stage][operation]
    assert operation(guest, 1) == result
    assert is_up(guest, 1) == now_up
    assert did(guest) == act
    forget(guest)
    after = AFTER.get((stage, operation), stage)
    for question in (initialise, up, is_up):  # up is last but one: it changes the stage
        wanted, _, then = TABLE[after][question]
        assert question(guest, 1) == wanted, question.__name__
        after = AFTER.get((after, question), after)
        assert did(guest) == then
        forget(guest)
    assert guest.domain.running


def test_the_boot_processor_is_initialised_and_up(guest: Guest) -> None:
    assert (is_up(guest, 0), is_up(guest, 1)) == (1, 0)
    assert initialise(guest, 0) == -EEXIST
    assert up(guest, 0) == 0
    assert not guest.host.started


@pytest.mark.parametrize("command", [*range(16), 99])
@pytest.mark.parametrize("vcpu", [2, 3, 0xFFFFFFFF])
def test_a_vcpu_that_is_none_gives_enoent_whatever_the_command(guest: Guest, command: int, vcpu: int) -> None:
    assert guest.call(VCPU_OP, command, vcpu, RAM) == -ENOENT


@pytest.mark.parametrize("address", [RAM, RAM - 127], ids=["unmapped", "second page unmapped"])
@pytest.mark.parametrize("vcpu", [0, 1])
def test_a_context_that_cannot_be_read_gives_efault_before_eexist(guest: Guest, vcpu: int, address: int) -> None:
    assert guest.call(VCPU_OP, INITIALISE, vcpu, address) == -EFAULT


def test_eexist_comes_before_einval(guest: Guest) -> None:
    assert initialise(guest, 0, bytes(128)) == -EEXIST
    assert initialise(guest, 1, bytes(128)) == -EINVAL
    assert up(guest, 1) == -EINVAL
    assert initialise(guest, 1) == 0
    assert initialise(guest, 1, bytes(128)) == -EEXIST


def test_a_context_may_lie_across_two_pages(guest: Guest) -> None:
    assert guest.ram.write(ARG + 0xFC0, mode_32b())
    assert guest.call(VCPU_OP, INITIALISE, 1, ARG + 0xFC0) == 0
    assert up(guest, 1) == 0
    assert guest.host.started == [(1, flat())]


def test_a_context_is_taken_once(guest: Guest) -> None:
    """What UP starts is what INITIALISE was given, not what the guest wrote there since."""
    assert initialise(guest, 1) == 0
    assert initialise(guest, 1, mode_64b()) == -EEXIST
    up(guest, 1)
    assert guest.host.started == [(1, flat())]


def test_after_an_init_another_context_is_taken(guest: Guest) -> None:
    initialise(guest, 1)
    up(guest, 1)
    init(guest, 1)
    assert initialise(guest, 1, mode_64b()) == 0
    up(guest, 1)
    (_, first), (_, second) = guest.host.started
    assert first
    assert second
    assert (first.bits, second.bits) == (32, 64)


def test_an_ignored_sipi_leaves_the_context_alone(guest: Guest) -> None:
    initialise(guest, 1)
    sipi(guest, 1)
    up(guest, 1)
    assert guest.host.started == [(1, flat())]


def test_cpuid_decides_what_a_context_may_hold(guest: Guest) -> None:
    guest.host.table = ()
    assert initialise(guest, 1, mode_64b()) == -EINVAL
    assert initialise(guest, 1, mode_32b()) == 0


class TestTheLastOne:
    """The domain is powered off with its last running vCPU."""

    POWEROFF = 0
    WHY: ClassVar[dict[Operation, str]] = {
        down: "went down",
        halt: "halted with interrupts off",
        init: "was stopped by an INIT",
    }

    def went_off(self, guest: Guest, vcpu: int, operation: Operation) -> bool:
        if not guest.host.ended:
            return False
        assert guest.host.ended == [self.POWEROFF]
        why = f"vCPU {vcpu} {self.WHY[operation]}, and Xen powers a domain off when none is left running"
        assert guest.host.why == [(why, vcpu)]
        return not guest.domain.running

    @pytest.mark.parametrize("operation", [down, init, halt])
    def test_it_goes_down_alone(self, guest: Guest, operation: Operation) -> None:
        assert operation(guest, 0) == 0
        assert self.went_off(guest, 0, operation)

    @pytest.mark.parametrize("operation", [down, init, halt])
    @pytest.mark.parametrize("first", [0, 1])
    def test_it_goes_down_last(self, guest: Guest, operation: Operation, first: int) -> None:
        initialise(guest, 1)
        up(guest, 1)
        operation(guest, first)
        assert not self.went_off(guest, first, operation)
        operation(guest, 1 - first)
        assert self.went_off(guest, 1 - first, operation)

    def test_taking_down_one_that_is_not_up_ends_nothing(self, guest: Guest) -> None:
        for operation in (down, init, halt):
            operation(guest, 1)
        assert not guest.host.ended

    def test_one_that_came_up_again_counts(self, guest: Guest) -> None:
        sipi(guest, 1)
        down(guest, 0, caller=1)
        up(guest, 0)
        down(guest, 1)
        assert not guest.host.ended
        down(guest, 0)
        assert self.went_off(guest, 0, down)

    def test_shutting_down_by_sched_op_needs_no_reason(self, guest: Guest) -> None:
        guest.op(SCHED_OP, 2, "<I", 1)
        assert (guest.host.ended, guest.host.why) == ([1], [(None, None)])


IMPOSSIBLE = {"CR0.NW is set without CR0.CD": mode_32b(cr0=1 | 1 << 29), "CR3 has bits above 39": mode_64b(cr3=1 << 52)}


@pytest.mark.parametrize("why", IMPOSSIBLE)
def test_a_state_that_hardware_refuses_is_a_crash_that_names_the_vcpu(guest: Guest, why: str) -> None:
    """Xen takes it; VM entry does not, once the vCPU is brought up."""
    assert initialise(guest, 1, IMPOSSIBLE[why]) == 0
    assert guest.domain.running
    assert up(guest, 1) == 0
    assert guest.host.ended == [3]
    assert guest.host.why == [(f"vCPU 1 was started in a state that no processor enters: {why}", 1)]
    assert not guest.host.started


class TestAnEnginesOwnApic:
    """Where INIT, SIPI and HLT never reach the personality, it asks what a vCPU awaits."""

    def test_a_sipi_brought_it_up(self, guest: Guest) -> None:
        guest.host.awaited[1] = "sipi"
        assert is_up(guest, 1) == 0
        guest.host.awaited[1] = "nothing"
        assert is_up(guest, 1) == 1
        assert initialise(guest, 1) == -EEXIST
        assert not guest.host.started

    def test_it_counts_among_the_running(self, guest: Guest) -> None:
        guest.host.awaited[1] = "nothing"
        down(guest, 0)
        assert not guest.host.ended

    @pytest.mark.parametrize("operations", [(initialise,), (initialise, up), (initialise, up, down)])
    def test_an_init_made_it_wait(self, guest: Guest, operations: tuple[Operation, ...]) -> None:
        for operation in operations:
            operation(guest, 1)
        guest.host.awaited[1] = "sipi"
        assert is_up(guest, 1) == 0
        assert initialise(guest, 1) == 0

    def test_one_that_is_initialised_ignores_sipis(self, guest: Guest) -> None:
        """vlapic_init_sipi_one: a SIPI does nothing where v->is_initialised; and EEXIST and EINVAL do not count."""
        for context in (mode_32b(cr0=0), mode_32b(), mode_32b()):
            initialise(guest, 1, context)
        assert guest.host.deaf == [1]

    def test_one_that_waits_is_what_its_stage_says(self, guest: Guest) -> None:
        """Its APIC was told to ignore SIPIs, and no INIT came."""
        initialise(guest, 1)
        guest.host.awaited[1] = "init"
        assert is_up(guest, 1) == 0
        assert initialise(guest, 1) == -EEXIST
        up(guest, 1)
        assert is_up(guest, 1) == 1, "before its thread has loaded the state"
        guest.host.awaited[1] = "nothing"
        assert is_up(guest, 1) == 1
        guest.host.awaited[1] = "resume"
        down(guest, 1)
        assert is_up(guest, 1) == 0

    @pytest.mark.parametrize("operations", [(), (initialise,), (initialise, up, down)])
    def test_an_init_and_a_sipi_came_since(self, guest: Guest, operations: tuple[Operation, ...]) -> None:
        for operation in operations:
            operation(guest, 1)
        guest.host.awaited[1] = "nothing"
        assert is_up(guest, 1) == 1

    @pytest.mark.parametrize("operations", [(), (initialise, up)])
    def test_one_that_halted_with_interrupts_off_is_down(self, guest: Guest, operations: tuple[Operation, ...]) -> None:
        """hvm_hlt: it goes on behind the HLT when it is brought up again."""
        for operation in operations:
            operation(guest, 1)
        guest.host.awaited[1] = "nmi"
        assert is_up(guest, 1) == 0
        assert guest.host.stopped == [1]
        assert not guest.host.ended
        guest.host.awaited[1] = "resume"
        up(guest, 1)
        assert guest.host.started[-1] == (1, None)

    def test_a_domain_is_off_once_all_have(self, guest: Guest) -> None:
        sipi(guest, 1)
        guest.host.awaited = {0: "nmi", 1: "nmi"}
        assert not guest.domain.processors.is_up(0)
        assert set(guest.host.ended) == {SHUTDOWN_POWEROFF}
        assert guest.host.stopped == [0, 1]


def test_a_storm_of_ups_and_downs_ends_in_the_right_stage(guest: Guest) -> None:
    initialise(guest, 1)
    for _ in range(1000):
        assert up(guest, 1) == 0
        assert is_up(guest, 1) == 1
        assert down(guest, 1) == 0
        assert is_up(guest, 1) == 0
    assert len(guest.host.started) == len(guest.host.stopped) == 1000
    assert guest.host.started[0] == (1, flat())
    assert all(state is None for _, state in guest.host.started[1:])


def test_nothing_a_guest_asks_of_vcpu_op_raises() -> None:
    """Contexts a few bytes away from good ones, operations and vCPUs at random; the seed is fixed."""
    random = Random(3)
    allowed = {0, 1, -ENOENT, -EINVAL, -EEXIST, -EFAULT, -6, -16, -38}
    seen = set[int]()
    for _ in range(40):
        guest = Guest(vcpus=4)
        for _ in range(150):
            context = bytearray(random.choice((mode_32b, mode_64b))())
            for _ in range(random.randrange(3)):
                context[random.randrange(128)] = random.randrange(256)
            address = random.choice((ARG, ARG, ARG, 0, RAM - 64, random.getrandbits(64)))
            guest.ram.write(ARG, bytes(context))
            command, vcpu = random.choice((0, 0, 1, 1, 2, 3, random.randrange(18))), random.randrange(5)
            result = guest.call(VCPU_OP, command, vcpu, address, vcpu=random.randrange(4))
            assert result in allowed
            seen.add(result)
            if not guest.domain.running:
                break
            assert any(is_up(guest, vcpu) == 1 for vcpu in range(4))
        guest.close()
    assert {0, 1, -ENOENT, -EINVAL, -EEXIST, -EFAULT, -38} <= seen
