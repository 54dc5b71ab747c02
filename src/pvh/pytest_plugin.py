"""The pytest plugin: `pvh_boot` boots a kernel for a test, and shows the guest when the test fails.

    @pytest.mark.pvh(kernel="kernel.elf", memory="64M", timeout=60)
    def test_it_says_hello(pvh_boot):
        guest = pvh_boot()
        guest.console.expect("Hello", timeout=10)

pytest loads it wherever pvh is installed: it imports nothing of pvh before a test asks for a guest.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from pvh.build.image import Image
    from pvh.guest import Guest
    from pvh.kernel.record import Kernel
    from pvh.plan.options import BootOptions
    from pvh.plan.record import Plan

_ENGINES = ("kvm", "emulator")
_SHOWN = 16 << 10  # characters of a console that a report shows


class PvhBoot:
    """What the fixture `pvh_boot` is: call it to start a guest, which is stopped and closed when the test ends.

    So are its clones, which a report shows as well.

    kernel   the path that the marker names, None if it names none
    options  what the marker says; engine is the one of this run of the test
    """

    def __init__(self, kernel: str | None, options: BootOptions, folder: Path, traces: Path) -> None:
        """Paths of kernels count from folder; traces go into another."""
        self.kernel = kernel
        self.options = options
        self._folder = folder
        self._traces = traces
        self._guests: list[Guest] = []

    def __call__(
        self,
        kernel: str | os.PathLike[str] | Kernel | Plan | Image | None = None,
        options: BootOptions | None = None,
        *,
        paused: bool = False,
    ) -> Guest:
        """Start a guest, as pvh.boot does: of the marker's kernel and with its options, where none are given.

        A path counts from the folder of the test's file. An engine of `auto` is the one of this run of the test; every
        exit is traced into the test's tmp_path, if the options name no file. Raises what pvh.boot raises.
        """
        __tracebackhide__ = True  # pytest shows whose guest it was to be, not this
        from pvh.errors import PvhError

        try:
            guest = self._start(kernel, options, paused=paused)
        except PvhError as error:
            raise error.with_traceback(None) from None  # nor what lies below
        self._guests.append(guest)
        return guest

    def _start(
        self,
        kernel: str | os.PathLike[str] | Kernel | Plan | Image | None,
        options: BootOptions | None,
        *,
        paused: bool,
    ) -> Guest:
        from pvh.build.image import Image
        from pvh.guest import boot
        from pvh.plan.record import Plan
        from pvh.record import replace

        kernel = self.kernel if kernel is None else kernel
        if kernel is None:
            pytest.fail("no kernel: name one in @pytest.mark.pvh(kernel=...), or give it to pvh_boot()", pytrace=False)
        if isinstance(kernel, Image):
            plan = replace(kernel.plan, options=self._completed(options or kernel.plan.options))
            return boot(replace(kernel, plan=plan), paused=paused)
        if isinstance(kernel, Plan):
            return boot(replace(kernel, options=self._completed(options or kernel.options)), paused=paused)
        source = self._found(kernel) if isinstance(kernel, (str, os.PathLike)) else kernel
        return boot(source, self._completed(options or self.options), paused=paused)

    def _found(self, kernel: str | os.PathLike[str]) -> str:
        """Return the path of a kernel. Raises UsageError if nothing is there."""
        path = str(self._folder / kernel)
        if not os.path.exists(path):
            from pvh.errors import UsageError

            hint = "build it before the tests run, or mend its path, which counts from the folder of the test's file"
            raise UsageError("there is no such kernel", path=path, hint=hint)
        return path

    def close(self) -> None:
        """Stop and close every guest, also where one of them raises."""
        with ExitStack() as stack:
            for guest in self._all():
                stack.callback(guest.close)

    def sections(self) -> list[tuple[str, str]]:
        """Return what a report shows of each guest, as titles and texts."""
        shown: list[tuple[str, str]] = []
        for number, guest in enumerate(self._all(), 1):
            name = f"pvh guest {number}, {os.path.basename(guest.plan.kernel.path)} on {guest.engine}"
            shown.append((f"{name}: console", self._console(guest, number)))
            shown.append((f"{name}: how it stands", "\n".join(_standing(guest))))
        return shown

    def _all(self) -> list[Guest]:
        return [each for guest in self._guests for each in (guest, *guest.clones)]

    def _completed(self, options: BootOptions) -> BootOptions:
        from pvh.record import replace

        trace = str(self._traces / f"guest-{len(self._guests) + 1}.jsonl")
        engine = self.options.engine if options.engine == "auto" else options.engine
        return replace(options, engine=engine, trace=options.trace or trace)

    def _console(self, guest: Guest, number: int) -> str:
        """Return the end of what a guest said, fit for a terminal; a file has all of it, if that is more."""
        text = guest.console.text.replace("\r\n", "\n")
        if not text:
            return "(it said nothing)"
        note = ""
        if len(text) > _SHOWN:
            path = self._traces / f"guest-{number}.console"
            path.write_text(text, encoding="utf-8")
            note, text = f"(the end of it; {path} has all)\n", text[-_SHOWN:]
        return note + "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _standing(guest: Guest) -> list[str]:
    """Return how a guest ended, or that it runs; where it stands, what it executed last; its trace."""
    from pvh.errors import PvhError

    outcome = guest.outcome
    if outcome is None:
        lines = ["it has not ended"]
    else:
        lines = [f"{outcome.ending}, status {outcome.status}, after {outcome.seconds:.2f} s: {outcome.reason}"]
        lines += [f"while the guest ran, {change}" for change in outcome.changed]
    try:
        lines += guest.explain()
    except PvhError as error:
        lines.append(f"where it stood is not known: {error}")
        if outcome and outcome.recent:
            lines.append("last blocks executed, newest last: " + " ".join(map(hex, outcome.recent[-8:])))
    if guest.traced:
        lines.append(f"trace of every exit: {guest.plan.options.trace}")
    return lines


_BOOT = pytest.StashKey[PvhBoot]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare --pvh-engine."""
    parser.getgroup("pvh", "guests of pvh").addoption(
        "--pvh-engine",
        action="append",
        choices=("auto", *_ENGINES, "all"),
        help="run each test of pvh_boot on this engine; repeatable. One that is named has to be there; of `all`, "
        "those that cannot be relied on here are skipped (default: the marker's, else auto)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; refuse an engine that was named and is not there."""
    config.addinivalue_line(
        "markers",
        "pvh(kernel, memory, vcpus, engine, cmdline, ...): what pvh_boot boots: a path from this file's folder, "
        "and any field of pvh.BootOptions",
    )
    for name in config.getoption("pvh_engine") or ():
        if name in _ENGINES and (cause := _absent(name)):
            raise pytest.UsageError(f"--pvh-engine {name}: {cause}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test of pvh_boot run on each engine that was asked for."""
    asked = metafunc.config.getoption("pvh_engine")
    if asked and "pvh_engine" in metafunc.fixturenames:
        names = dict.fromkeys(name for word in asked for name in (_ENGINES if word == "all" else (word,)))
        metafunc.parametrize("pvh_engine", list(names), indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the guests to the report of a test that failed; they are still there."""
    report = yield
    boot = item.stash.get(_BOOT, None)
    if boot and report.failed and report.when != "teardown":
        report.sections.extend(boot.sections())
    return report


@pytest.fixture
def pvh_engine(request: pytest.FixtureRequest) -> str:
    """Return the engine of this run of the test: of --pvh-engine, else the marker's, else auto.

    The test is skipped where its marker names another engine, and where the engine, which nobody named on the command
    line, cannot be relied on here.
    """
    given: str = getattr(request, "param", "auto")
    marked: str = _marked(request.node).get("engine", "auto")
    if marked not in ("auto", *_ENGINES):
        pytest.fail(f"@pytest.mark.pvh(engine={marked!r}): no such engine: kvm, emulator or auto", pytrace=False)
    if "auto" not in (given, marked) and given != marked:
        pytest.skip(f"this test is for {marked}")
    name = marked if given == "auto" else given
    if name != "auto" and name not in (request.config.getoption("pvh_engine") or ()) and (cause := _unreliable(name)):
        pytest.skip(f"{name}: {cause}")
    return name


@pytest.fixture
def pvh_boot(request: pytest.FixtureRequest, pvh_engine: str, tmp_path: Path) -> Generator[PvhBoot]:
    """Start guests: see PvhBoot. They are stopped and closed when the test ends; when it fails, its report has them."""
    fields = _marked(request.node)
    kernel = fields.pop("kernel", None)
    options = _options({**fields, "engine": pvh_engine})
    boot = PvhBoot(None if kernel is None else os.fspath(kernel), options, request.path.parent, tmp_path)
    request.node.stash[_BOOT] = boot
    yield boot
    boot.close()


def _marked(item: pytest.Item) -> dict[str, Any]:
    """Return the keywords of the markers `pvh`; of the same keyword the one nearest to the test counts."""
    fields: dict[str, Any] = {}
    for mark in item.iter_markers("pvh"):
        if mark.args:
            pytest.fail("@pytest.mark.pvh takes keywords alone: kernel=..., memory=...", pytrace=False)
        fields = {**mark.kwargs, **fields}
    return fields


def _options(fields: dict[str, Any]) -> BootOptions:
    """Return the options of a marker; memory may be a size as people write it."""
    from dataclasses import fields as fields_of

    from pvh.amounts import parse_size
    from pvh.plan.options import BootOptions

    known = [field.name for field in fields_of(BootOptions)]
    for name in fields:
        if name not in known:
            words = ", ".join(["kernel", *known])
            pytest.fail(f"@pytest.mark.pvh has no {name!r}: it takes {words}", pytrace=False)
    for field in fields_of(BootOptions):
        value, wanted = fields.get(field.name, field.default), type(field.default)
        if (
            wanted in (str, int, bool)
            and not isinstance(value, wanted)
            and (field.name, type(value)) != ("memory", str)
        ):
            pytest.fail(f"@pytest.mark.pvh({field.name}={value!r}): {wanted.__name__} is wanted", pytrace=False)
    memory, why = fields.get("memory"), ""
    if isinstance(memory, str):
        try:
            fields["memory"] = parse_size(memory)
        except ValueError as error:
            why = str(error)
        if why:
            pytest.fail(f"@pytest.mark.pvh(memory=...): {why}", pytrace=False)
    return BootOptions(**fields)


@cache
def _unreliable(name: str) -> str:
    """Return why an engine cannot be relied on here, "" if it can."""
    from pvh.engines.select import why_not

    return why_not(name)


def _absent(name: str) -> str:
    """Return why an engine cannot be had at all, "" if it can: one with limits will do for who names it."""
    from pvh.engines.kvm.device import open_device
    from pvh.engines.select import choose
    from pvh.errors import NoEngine

    try:
        if name == "kvm":
            os.close(open_device())
        else:
            choose("emulator", lambda _: None)
    except NoEngine as error:
        return str(error)
    return ""
