"""pvh check: kernels that break one clause are caught at that clause, and those that break none are not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.relies import WRONG, Wrong, written
from conformance.schema import errors
from pvh.cli import main
from pvh.conformance.boot import Limits
from pvh.conformance.checker import Task
from pvh.conformance.report import VIOLATED, Report, as_dict, check
from pvh.conformance.text import render
from pvh.demo import demo_path
from pvh.engines.engine import Engine
from pvh.engines.select import choose
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions

ROOT = Path(__file__).resolve().parents[2]
GUESTS = ROOT / "tests" / "guests"
SCHEMA = json.loads((ROOT / "docs" / "check.schema.json").read_text(encoding="utf-8"))

# What these rely on beside what they are there for: they cannot but read what follows from it.
_LAYOUT = {
    "memory.placement", "start_info.last-bytes", "version.future", "cmdline.long", "memmap.empty", "memmap.order",
    "memmap.v0-absent", "modules.count", "modules.cmdline-absent",
}  # fmt: skip
ALSO = {
    "version.future": {"memmap.v0-absent"},
    "start_info.last-bytes": {*_LAYOUT, "memory.poison"},
    "memory.placement": _LAYOUT,
    "memmap.count": {"memmap.v0-absent"},
    "memmap.order": {"memmap.empty", "memmap.v0-absent", "start_info.null"},
    "memmap.empty": {"memmap.v0-absent"},
    "modules.count": {"modules.cmdline-absent"},
    "cmdline.long": {"memory.poison", "memory.placement", "cmdline.absent", "start_info.null"},
    "eflags.df": {"eflags.system"},
}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Engine:
    return choose("emulator", print)


def checked(engine: Engine, path: str, options: BootOptions | None = None, jobs: int = 1) -> Report:
    task = Task(read_kernel(path), options or BootOptions(), (), Limits(10.0))
    return check(task, engine, 1, jobs, only=lambda _name: True, tell=lambda _what, _count: None)


def violated(report: Report) -> set[str]:
    return {verdict.clause.id for verdict in report.violated}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.clause)
def test_what_it_relies_on_is_found(engine: Engine, tmp_path: Path, wrong: Wrong) -> None:
    report = checked(engine, wrong.write(tmp_path), BootOptions(cmdline=wrong.cmdline))
    assert report.booted, "it is fine as libxenguest boots it"
    found = violated(report)
    assert wrong.clause in found
    assert found <= {wrong.clause} | ALSO.get(wrong.clause, set())
    assert report.status == VIOLATED


def test_a_kernel_that_relies_on_nothing_breaks_nothing(engine: Engine, tmp_path: Path) -> None:
    report = checked(engine, written(tmp_path, "right.elf", bytes.fromhex("b000 e6f4 f4")))
    assert violated(report) == set()
    assert report.status == 0
    assert [one.passed for one in report.attempts] == [True] * len(report.attempts)


@pytest.mark.parametrize("guest", ["echo", "smp"])
def test_our_guests_keep_to_the_abi(engine: Engine, guest: str) -> None:
    assert violated(checked(engine, str(GUESTS / f"{guest}.elf"))) == set()


def test_two_causes_are_both_found(engine: Engine, tmp_path: Path) -> None:
    code = bytes.fromhex("85c0 7402 0f0b 85c9 7402 0f0b b000 e6f4 f4")
    report = checked(engine, written(tmp_path, "two.elf", code))
    assert violated(report) == {"entry.eax", "entry.ecx"}
    nasty = next(one for one in report.attempts if one.profile.name == "nasty")
    assert [[d.clause for d in cause.deviations] for cause in nasty.causes] == [["entry.eax"], ["entry.ecx"]]
    assert nasty.explained


def test_the_evidence_is_where_it_ended(engine: Engine, tmp_path: Path) -> None:
    report = checked(engine, written(tmp_path, "eax.elf", bytes.fromhex("85c0 7402 0f0b b000 e6f4 f4")))
    finding = next(finding for finding in report.violated[0].findings if finding.origin == "profile")
    assert finding.at is not None
    assert (finding.at.address, finding.at.disassembly) == (0x200004, "ud2")
    assert "with EAX = 0xffffffff, vCPU 0 triple-faulted" in finding.what


def test_a_kernel_that_never_boots_is_not_blamed_for_clauses(engine: Engine, tmp_path: Path) -> None:
    report = checked(engine, written(tmp_path, "dead.elf", bytes.fromhex("0f0b")))
    assert not report.booted
    assert violated(report) == {"idt"}, "it raises an exception, and has no IDT"
    assert len(report.attempts) == 1
    assert report.status == VIOLATED
    assert "it does not boot, not even with libxenguest's values: vCPU 0 triple-faulted" in render(report, 100)


def test_the_demo_kernel_keeps_to_the_abi(engine: Engine) -> None:
    report = checked(engine, demo_path())
    assert violated(report) == set()
    assert report.attempts[0].boot.ending == "poweroff"


def test_profile_and_monitor_agree_on_a_guest_without_cld(engine: Engine) -> None:
    """hello.S reads its text with LODSB: by hand, with DF set, it says other bytes."""
    report = checked(engine, str(GUESTS / "hello.elf"))
    assert violated(report) == {"eflags.df"}
    origins = {finding.origin: finding.at for finding in report.violated[0].findings}
    assert set(origins) == {"profile", "monitor"}
    at = origins["monitor"]
    assert at is not None
    assert at.disassembly.startswith("lodsb")


def test_jobs_find_the_same(engine: Engine) -> None:
    alone, shared = (as_dict(checked(engine, str(GUESTS / "hello.elf"), jobs=jobs)) for jobs in (1, 2))
    for report in (alone, shared):
        for one in report["profiles"]:
            for made in (one["boot"], *(cause["boot"] for cause in one["causes"])):
                for volatile in ("seconds", "blocks", "events", "trail"):
                    del made[volatile]
    assert alone == shared


def command(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pvh", "check", *words], capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def test_json_is_by_its_schema() -> None:
    for words in ([str(GUESTS / "hello.elf")], [str(GUESTS / "echo.elf"), "--until", "console:ready"]):
        status, out, said = command("--json", *words)
        told: dict[str, Any] = json.loads(out)
        assert list(errors(told, SCHEMA, SCHEMA)) == []
        assert told["status"] == status
        boots = [one["boot"] for one in told["profiles"]]
        assert [made["reached"] for made in boots] == [made["missing"] is None for made in boots]
        assert said == ""


def test_the_schema_refuses_what_is_not_in_it() -> None:
    told = {"schema": 2, "more": 1}
    found = "\n".join(errors(told, SCHEMA, SCHEMA))
    assert "2 is not 1" in found
    assert "more is not in the schema" in found
    assert "no clauses" in found


def test_the_text_names_profiles_and_the_clause() -> None:
    status, out, said = command(str(GUESTS / "hello.elf"), "--profile", "ones", "--profile", "nasty")
    assert status == VIOLATED
    assert said == ""
    lines = out.splitlines()
    assert lines[1].startswith("kind           boots")
    assert [line.split()[:2] for line in lines[2:4]] == [["ones", "FAILS"], ["nasty", "FAILS"]]
    assert "violated: eflags.df" in lines
    assert any(line.startswith("  profiles ones, nasty: with EFLAGS.DF set") for line in lines)


@pytest.mark.parametrize(
    ("until", "told"),
    [("console:(", "no regular expression"), ("hypercall:none", "no such hypercall"), ("ends:well", "no such end"),
     ("ends:exit-port=x", "no such end"), ("later", "no such milestone"), ("instructions:", "no such milestone"),
     ("blocks:5", "no such milestone")],
)  # fmt: skip
def test_a_milestone_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], until: str, told: str) -> None:
    assert main(["check", "--until", until, str(GUESTS / "hello.elf")]) == 2
    assert told in capsys.readouterr().err


def test_a_profile_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--profile", "odd", str(GUESTS / "hello.elf")]) == 2
    assert "no such profile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("until", "said"),
    [
        ("hypercall:console_io", "console_io"),
        ("instructions:50", "50 instructions"),
        ("long-mode", "64-bit"),
        ("ends:exit-port", "exit-port"),
    ],
)
def test_milestones(until: str, said: str) -> None:
    guest = {"hypercall:console_io": "personality", "long-mode": "entry64"}.get(until, "entry32")
    status, out, _ = command(str(GUESTS / f"{guest}.elf"), "--until", until, "--profile", "nasty")
    assert status in (0, VIOLATED), "these print their registers, which is a use"
    assert said in out.splitlines()[0]
    assert [line.split()[1] for line in out.splitlines()[1:3]] == ["boots", "boots"]


def test_a_file_that_is_no_guest_has_its_reason_and_its_lints(tmp_path: Path) -> None:
    from elfwriter import Elf, Load, entry_note, notes

    path = tmp_path / "high.elf"
    path.write_bytes(Elf((Load(0xC0100000, b"\xf4" * 32), notes(entry_note(0xC0100000)))).build())
    status, out, _ = command("--json", str(path))
    told = json.loads(out)
    assert status == told["status"] == 20
    assert "do not fit" in told["refused"]
    assert "upheld" not in {clause["verdict"] for clause in told["clauses"]}
    assert [clause["id"] for clause in told["clauses"] if clause["verdict"] == "violated"] == [
        "file.paddr",
        "file.image-fits",
    ]
    assert list(errors(told, SCHEMA, SCHEMA)) == []


@pytest.mark.parametrize(
    ("image", "names"),
    [("grub-i386-xen_pvh.bin", {"ones", "nasty", "edge", "memory-map", "version-0", "high-memory"}),
     ("vmlinuz-cloud-6.1", {"nasty", "version-0", "memory-map"}), ("vmlinuz-6.12", {"moved-high"})],
)  # fmt: skip
def test_released_kernels_keep_to_the_abi(specimen: Callable[[str], Path], image: str, names: set[str]) -> None:
    words = [word for name in sorted(names) for word in ("--profile", name)]
    status, out, said = command("--json", *words, str(specimen(image)))
    told = json.loads(out)
    # Linux's is true: tests/conformance/test_monitor_real.py::TestLinuxOfVersion0 shows it by hand.
    violated = ["eflags.system"] if image.startswith("vmlinuz") else []
    assert [clause["id"] for clause in told["clauses"] if clause["verdict"] == "violated"] == violated, out + said
    assert status == (15 if violated else 0)
    shown = [f for clause in told["clauses"] for f in clause["findings"] if f["grade"] == "violation"]
    assert all("IOPL, NT, RF, AC, ID set there, as in profile ones, vCPU 0 triple-faulted" in f["what"] for f in shown)
    assert {f["profile"] for f in shown} <= {"version-0"}
    assert {one["name"] for one in told["profiles"] if one["passed"]} == {"kind", *names}
