"""The life of a vCPU: VCPUOP_initialise, up and down; INIT and SIPI of the local APIC; HLT with interrupts off.

xen/common/domain.c, do_vcpu_op; xen/arch/x86/hvm/vlapic.c, vlapic_init_sipi_one; xen/arch/x86/hvm/hvm.c, hvm_hlt.
"""

from __future__ import annotations

from pvh.abi.errno import EEXIST, EINVAL
from pvh.abi.sched import SHUTDOWN_CRASH, SHUTDOWN_POWEROFF
from pvh.abi.vcpu_op import RUNSTATE_OFFLINE, RUNSTATE_RUNNING
from pvh.hints import TYPE_CHECKING, Literal
from pvh.record import dataclass
from pvh.xen.runstate import Runstate

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.engines.engine import Awaits
    from pvh.xen.domain import Domain

# Xen's is_initialised and _VPF_down: created is neither initialised nor up; down has run before.
Stage = Literal["created", "initialised", "up", "down"]
Request = Literal["initialise", "up", "down", "halt", "init", "sipi"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a request does to a vCPU in a stage: the stage then, what a hypercall returns, what the processor does."""

    at: Stage
    request: Request
    to: Stage
    result: int = 0
    act: Literal["start", "resume", "stop", "ignore-sipi"] | None = None


# A pair that is not here changes nothing and returns 0: UP when up, DOWN when not, INIT before INITIALISE, SIPI after.
STEPS: tuple[Step, ...] = (
    Step("created", "initialise", "initialised", act="ignore-sipi"),
    Step("created", "up", "created", -EINVAL),
    Step("created", "sipi", "up", act="start"),
    Step("initialised", "initialise", "initialised", -EEXIST),
    Step("initialised", "up", "up", act="start"),
    Step("initialised", "init", "created"),
    Step("up", "initialise", "up", -EEXIST),
    Step("up", "down", "down", act="stop"),
    Step("up", "halt", "down", act="stop"),
    Step("up", "init", "created", act="stop"),
    Step("down", "initialise", "down", -EEXIST),
    Step("down", "up", "up", act="resume"),
    Step("down", "init", "created"),
)
_STEPS = {(step.at, step.request): step for step in STEPS}

# Where an engine's own local APIC handles INIT and SIPI: what it means for a vCPU in a stage what it awaits. INIT and
# SIPI may both have come; one that halts with interrupts off was up until then.
_LEARNT: dict[tuple[Stage, Awaits], Stage] = {
    ("created", "nothing"): "up",
    ("created", "nmi"): "up",
    ("initialised", "sipi"): "created",
    ("initialised", "nothing"): "up",
    ("initialised", "nmi"): "up",
    ("up", "sipi"): "created",
    ("down", "sipi"): "created",
    ("down", "nothing"): "up",
}

_STOPPED: dict[Request, str] = {
    "down": "went down",
    "halt": "halted with interrupts off",
    "init": "was stopped by an INIT",
}


class Vcpu:
    """One vCPU as Xen sees it. context: the state that the next start gives it."""

    __slots__ = ("context", "runstate", "stage")
    KEPT = __slots__

    def __init__(self, stage: Stage, runstate: Runstate) -> None:
        self.stage: Stage = stage
        self.runstate = runstate
        self.context: CpuState | None = None


class Vcpus:
    """The vCPUs of a domain. Callers hold the domain's lock."""

    KEPT = ("_vcpus",)

    def __init__(self, domain: Domain) -> None:
        """Make them as a toolstack leaves them: the first initialised and up, the others created."""
        self._domain = domain
        ram = domain.ram
        others = [Vcpu("created", Runstate(ram, RUNSTATE_OFFLINE)) for _ in range(1, domain.vcpus)]
        self._vcpus = [Vcpu("up", Runstate(ram, RUNSTATE_RUNNING)), *others]

    def __getitem__(self, vcpu: int) -> Vcpu:
        """Return a vCPU by its id."""
        return self._vcpus[vcpu]

    def is_up(self, vcpu: int) -> bool:
        """Whether it is up: what VCPUOP_is_up answers."""
        return self._stage(vcpu) == "up"

    def initialise(self, vcpu: int, raw: bytes) -> int:
        """Take a vcpu_hvm_context; -EEXIST comes before -EINVAL."""
        from pvh.xen.vcpu_context import parse  # most guests start no vCPU by hypercall

        refusal = self._step(vcpu, "initialise").result
        if refusal:
            return refusal
        context = parse(raw, self._domain.host.cpuid(vcpu))
        return context if isinstance(context, int) else self.request(vcpu, "initialise", context)

    def sipi(self, vcpu: int, vector: int) -> None:
        """Take a SIPI that a local APIC sent, for the page of that number."""
        from pvh.xen.vcpu_entry import sipi_state

        self.request(vcpu, "sipi", sipi_state(vector))

    def request(self, vcpu: int, request: Request, context: CpuState | None = None) -> int:
        """Do what the table says; context is kept where the vCPU starts, or may be started, afterwards.

        Xen powers the domain off with its last running vCPU.
        """
        step = self._step(vcpu, request)
        record = self._vcpus[vcpu]
        record.stage = step.to
        if context and step.at != step.to:
            record.context = context
        if step.act == "stop":
            self._stop(vcpu, request)
        elif step.act == "ignore-sipi":
            self._domain.host.ignore_sipi(vcpu)
        elif step.act:
            self._run(vcpu, record.context if step.act == "start" else None)
        return step.result

    def _step(self, vcpu: int, request: Request) -> Step:
        stage = self._stage(vcpu)
        return _STEPS.get((stage, request)) or Step(stage, request, stage)

    def _stage(self, vcpu: int) -> Stage:
        """Return the stage, after asking what an engine did without a word."""
        record = self._vcpus[vcpu]
        awaits = self._domain.host.awaits(vcpu)
        if awaits and (record.stage, awaits) in _LEARNT:
            record.stage = _LEARNT[record.stage, awaits]
            self._domain.enter_runstate(vcpu, RUNSTATE_RUNNING if record.stage == "up" else RUNSTATE_OFFLINE)
        if awaits == "nmi" and record.stage == "up":
            record.stage = "down"
            self._stop(vcpu, "halt")
        return record.stage

    def _run(self, vcpu: int, context: CpuState | None) -> None:
        """Start a vCPU with a context, or have it go on where it stopped; a context no processor enters is a crash."""
        domain = self._domain
        if context:
            from pvh.xen.vcpu_entry import enter
            from pvh.xen.vcpu_features import physical_bits

            entered = enter(context, physical_bits(domain.host.cpuid(vcpu)))
            if isinstance(entered, str):
                why = f"vCPU {vcpu} was started in a state that no processor enters: {entered}"
                domain.shut_down(SHUTDOWN_CRASH, why, vcpu)
                return
            context = entered
        domain.enter_runstate(vcpu, RUNSTATE_RUNNING)
        domain.host.online(vcpu, context)

    def _stop(self, vcpu: int, request: Request) -> None:
        domain = self._domain
        domain.enter_runstate(vcpu, RUNSTATE_OFFLINE)
        domain.host.offline(vcpu)
        if not any(self.is_up(other) for other in range(domain.vcpus)):
            why = f"vCPU {vcpu} {_STOPPED[request]}, and Xen powers a domain off when none is left running"
            domain.shut_down(SHUTDOWN_POWEROFF, why, vcpu)
