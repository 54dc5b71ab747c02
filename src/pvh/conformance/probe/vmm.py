"""Run the probe kernel in VMMs that are installed here.

Firecracker, Cloud Hypervisor and xl are told what to boot in the words of pvh.export. QEMU also has a monitor, which
tells what TR holds. (An interrupt does not: QEMU's TCG takes the busy TSS that the ABI wants as an invalid one.)
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping

from pvh.conformance.probe.capture import Capture, read_capture
from pvh.conformance.probe.facts import Observation, Value, observe
from pvh.conformance.probe.kernel import FORMS, Form, probe_file
from pvh.errors import EngineError, UsageError
from pvh.export import export
from pvh.hints import Any, Literal
from pvh.kernel.loaders import LoaderVerdict, judge_all
from pvh.kernel.read import read_kernel, read_source
from pvh.kernel.source import BytesSource
from pvh.plan.options import MIB, BootOptions, ModuleSpec
from pvh.record import dataclass, replace

Accel = Literal["tcg", "kvm"]

MEMORY = 256 * MIB
CMDLINE = "pvh-probe one two"
QUICK = f"{CMDLINE} quick"  # for where TR is asked for otherwise than by an interrupt
MODULE = b"a module of the probe kernel's\n"
_POLL = 0.02  # seconds
_MOST_LOG = 1 << 22  # bytes
_GREETING = re.compile(r"QEMU \S+ monitor ")
_SEGMENT = re.compile(r"^(TR|LDT) *=([0-9a-f]{4}) ([0-9a-f]{8,16}) ([0-9a-f]{8}) ([0-9a-f]{8})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Vmm:
    """A VMM to run.

    program  what is executed
    package  what to install to have it
    loader   what loads kernels there, by its name in pvh.kernel.loaders
    words    give the command line for a folder of files (see _prepare) and an accelerator
    last     the part of the probe after which nothing more is to come
    ask      standard input and what it answers, once the probe is done: QEMU's monitor
    """

    name: str
    program: str
    package: str
    loader: str
    words: Callable[[str, Accel], list[str]]
    last: int = 3
    ask: bytes = b""


@dataclass(frozen=True, slots=True)
class Probe:
    """How to run the probe.

    form     which of its files; None: the first of FORMS that the VMM boots by PVH
    accel    QEMU's accelerator
    seconds  to wait
    """

    form: Form | None = None
    accel: Accel = "tcg"
    seconds: float = 60.0


def _qemu(machine: str) -> Callable[[str, Accel], list[str]]:
    def words(folder: str, accel: Accel) -> list[str]:
        return [
            *("qemu-system-x86_64", "-M", machine, "-accel", accel, "-m", str(MEMORY // MIB)),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-no-shutdown", "-display", "none"),
            *("-monitor", "stdio", "-serial", f"file:{folder}/log"),
            *("-kernel", f"{folder}/kernel", "-initrd", f"{folder}/module"),
            *("-append", QUICK),
        ]

    return words


def _options(folder: str) -> BootOptions:
    return BootOptions(memory=MEMORY, cmdline=CMDLINE, modules=(ModuleSpec(f"{folder}/module"),))


def _exported(target: str, folder: str) -> str:
    return export(target, read_kernel(f"{folder}/kernel"), _options(folder)).text


def _firecracker(folder: str, _: Accel) -> list[str]:
    with open(f"{folder}/config", "w", encoding="utf-8") as file:
        file.write(_exported("firecracker", folder))
    return ["firecracker", "--no-api", "--config-file", f"{folder}/config"]


def _cloud_hypervisor(folder: str, _: Accel) -> list[str]:
    return shlex.split(_exported("cloud-hypervisor", folder))


def _xl(folder: str, _: Accel) -> list[str]:
    with open(f"{folder}/config", "w", encoding="utf-8") as file:
        file.write(_exported("xl", folder))
    return ["xl", "create", "-c", f"{folder}/config"]


VMMS: Mapping[str, Vmm] = {
    vmm.name: vmm
    for vmm in (
        *(Vmm(f"qemu-{machine}", "qemu-system-x86_64", "Debian's package qemu-system-x86", "QEMU", _qemu(machine),
              last=2, ask=b"info registers\nquit\n") for machine in ("pc", "q35", "microvm")),
        Vmm("firecracker", "firecracker", "a release of github.com/firecracker-microvm/firecracker", "Firecracker",
            _firecracker),
        Vmm("cloud-hypervisor", "cloud-hypervisor",
            "a release of github.com/cloud-hypervisor/cloud-hypervisor", "Cloud Hypervisor", _cloud_hypervisor),
        Vmm("xl", "xl", "Debian's packages xen-hypervisor and xen-utils, and be domain 0", "libxenguest", _xl),
    )
}  # fmt: skip


def run_vmm(vmm: Vmm, probe: Probe) -> Observation:
    """Boot the probe in a VMM and return what it saw.

    Raises UsageError where the program is not installed, or boots this form of the probe otherwise than by PVH,
    EngineError where the probe said nothing there.
    """
    form = _form(vmm, probe.form)
    if shutil.which(vmm.program) is None:
        raise UsageError(f"{vmm.program} is not installed here", hint=f"install {vmm.package}; or boot the file of"
                         " pvh probe --write there, and give its console's log to --dump")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pvh-probe-") as folder:
        for name, data in (("kernel", probe_file(form)), ("module", MODULE), ("log", b"")):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        run = _Run(vmm, folder, probe)
        log, said = run.to_the_end()
    try:
        capture = read_capture(log)
    except UsageError:
        raise EngineError(
            f"{vmm.name}: the probe kernel said nothing", found=_telling(run.complaint), hint=run.ending
        ) from None
    title = f"{vmm.name} ({probe.accel})" if vmm.ask else vmm.name
    seen = observe(capture, title)
    return replace(seen.adding(monitor_facts(said)), remarks=(*seen.remarks, *_unfinished(capture, vmm, run.ending)))


def _unfinished(capture: Capture, vmm: Vmm, ending: str) -> list[str]:
    return [f"the probe came to part {capture.parts} of {vmm.last}: {ending}"] if capture.parts < vmm.last else []


def _form(vmm: Vmm, asked: Form | None) -> Form:
    """Return the form to boot. Raises UsageError where what loads kernels there boots it otherwise, or not at all."""
    verdict = _verdict(vmm, asked or FORMS[0])
    if verdict.pvh:
        return asked or FORMS[0]
    others: list[Form] = [form for form in FORMS if form != asked and _verdict(vmm, form).pvh]
    if asked is None and others:
        return others[0]
    raise UsageError(f"{vmm.name} does not boot the probe as {asked} by PVH", found=verdict.path or verdict.says,
                     wanted=f"--form {' or '.join(others)}", hint=f"so says {verdict.source}")  # fmt: skip


def _verdict(vmm: Vmm, form: Form) -> LoaderVerdict:
    kernel = read_source(BytesSource(f"the probe as {form}", probe_file(form)))
    return next(verdict for verdict in judge_all(kernel) if verdict.loader == vmm.loader)


def _telling(said: str) -> str:
    """Return the first line in which a VMM speaks of an error; else its first one but its monitor's greeting."""
    lines = [line.removeprefix("(qemu)").strip() for line in said.splitlines() if not _GREETING.match(line)]
    errors = (line for line in lines if "error" in line.lower())
    return next(errors, next(filter(None, lines), "not a word"))


class _Run:
    """One run of a VMM: it is ended when the probe is done, or when time is up."""

    def __init__(self, vmm: Vmm, folder: str, probe: Probe) -> None:
        self._vmm = vmm
        self._log = os.path.join(folder, "log")
        self._out = os.path.join(folder, "out")
        self._deadline = time.monotonic() + probe.seconds
        self._words = vmm.words(folder, probe.accel)
        self.ending = "it runs on"
        self.complaint = ""  # what the VMM said before its monitor was asked

    def to_the_end(self) -> tuple[bytes, str]:
        """Return what the guest and the VMM said."""
        with open(self._out, "wb") as out:
            told = subprocess.PIPE if self._vmm.ask else subprocess.DEVNULL
            with subprocess.Popen(self._words, stdin=told, stdout=out, stderr=subprocess.STDOUT) as process:
                try:
                    self._wait(process)
                    self.complaint = self._read(self._out).decode(errors="replace")
                    if self._vmm.ask and process.poll() is None:
                        self._ask(process)
                finally:
                    process.kill()
        said = self._read(self._out)
        return self._read(self._log) + said, said.decode(errors="replace")

    def _wait(self, process: Any) -> None:
        done = re.compile(rb" end\. %08x [0-9a-f]{8} [0-9a-f]{8}\n" % (self._vmm.last - 1))
        while process.poll() is None:
            log = self._read(self._log) + (b"" if self._vmm.ask else self._read(self._out))
            if done.search(log):
                self.ending = "it is done"
                return
            if time.monotonic() > self._deadline:
                self.ending = "time is up (--timeout)"
                return
            time.sleep(_POLL)
        self.ending = f"{self._vmm.program} ended with status {process.returncode}"

    def _ask(self, process: Any) -> None:
        try:
            process.communicate(self._vmm.ask, timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.ending += "; its monitor did not answer"

    def _read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read(_MOST_LOG)


def monitor_facts(said: str) -> dict[str, Value]:
    """Return what QEMU's `info registers` tells of TR and LDTR (target/i386/cpu-dump.c)."""
    facts: dict[str, Value] = {}
    for name, _, base, limit, flags in _SEGMENT.findall(said):
        where = {"TR": "tr", "LDT": "ldtr"}[name]
        facts[f"{where}.base"] = int(base, 16)
        facts[f"{where}.limit"] = int(limit, 16)
        facts[f"{where}.type"] = int(flags, 16) >> 8 & 15
    return facts
