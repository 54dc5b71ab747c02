"""Run the probe kernel in our own engines: what others are compared with."""

from __future__ import annotations

import tempfile

from pvh.build.builder import build
from pvh.conformance.probe.capture import read_capture
from pvh.conformance.probe.facts import Observation, Value, observe
from pvh.conformance.probe.kernel import FORMS, probe_file
from pvh.conformance.probe.vmm import MEMORY, MODULE, QUICK, Probe
from pvh.engines.select import choose
from pvh.errors import EngineError, UsageError
from pvh.hints import TYPE_CHECKING
from pvh.kernel.read import read_source
from pvh.kernel.source import BytesSource
from pvh.machine import Machine
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.record import replace

if TYPE_CHECKING:
    from pvh.build.cpu_state import CpuState
    from pvh.build.ram import GuestRam
    from pvh.kernel.record import Kernel
    from pvh.outcome import Outcome
    from pvh.plan.options import EngineName

OWN: dict[str, EngineName] = {"pvh-emulator": "emulator", "pvh-kvm": "kvm"}
_PARTS = 2
_CALL = 3  # bytes of VMCALL and VMMCALL


def run_own(name: str, probe: Probe) -> Observation:
    """Boot the probe in one of our engines (a name of OWN). Raises NoEngine, EngineError."""
    engine = choose(OWN[name], lambda _: None)
    kernel = read_source(BytesSource("probe", probe_file(probe.form or FORMS[0])))
    with tempfile.NamedTemporaryFile(prefix="pvh-probe-") as module:
        module.write(MODULE)
        module.flush()
        options = BootOptions(memory=MEMORY, cmdline=QUICK, modules=(ModuleSpec(module.name),), timeout=probe.seconds)
        image = build(plan(kernel, options))
        said = bytearray()
        try:
            machine = Machine(image, engine, said.extend)
            entry = machine.vm.vcpus[0].state()
            other = _changed(kernel, image.ram)
            outcome = machine.run()
        finally:
            image.ram.close()
    try:
        capture = read_capture(bytes(said))
    except UsageError:
        raise EngineError(f"{name}: the probe kernel said nothing", found=outcome.reason) from None
    seen = observe(capture, name)
    remarks = (*seen.remarks, *_patched(outcome), *_unfinished(capture.parts, outcome))
    seen = seen.adding(_hidden(entry))
    if other and other <= {place + offset for place in outcome.patched for offset in range(_CALL)}:
        seen = seen.adding({"code.replaced": len(outcome.patched)})
    return replace(seen, remarks=remarks)


def _changed(kernel: Kernel, ram: GuestRam) -> set[int]:
    """Return the physical addresses of loaded bytes that are not the file's, before the first instruction."""
    made: set[int] = set()
    for load in kernel.loads:
        file, there = kernel.source.read(load.offset, load.filesz), ram.read(load.paddr, load.filesz)
        assert there is not None, "the kernel lies in RAM"
        made.update(load.paddr + at for at, (one, other) in enumerate(zip(file, there, strict=True)) if one != other)
    return made


def _hidden(state: CpuState) -> dict[str, Value]:
    """Return what the engine says of TR at entry: a guest cannot read it."""
    return {"tr.base": state.tr.base, "tr.limit": state.tr.limit, "tr.type": state.tr.attributes & 15}


def _patched(outcome: Outcome) -> list[str]:
    if not outcome.patched:
        return []
    count = len(outcome.patched)
    return [
        f"{count} hypercalls in the probe's code were replaced, as docs/engines.md says: pvh run --no-patch does not"
    ]


def _unfinished(parts: int, outcome: Outcome) -> list[str]:
    return [f"the probe came to part {parts} of {_PARTS}: {outcome.reason}"] if parts < _PARTS else []
