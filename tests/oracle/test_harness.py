"""tools/oracle without QEMU: the words it takes, what dom0 gets, what it makes of what dom0 sends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tools.oracle import dom0, job, run

from oracle.recorded import NAMES, ROOT, log_of

HELLO = "tests/guests/hello.elf"
FACTS = {"date": "2026-11-25", "command": "python tools/oracle/run.py"}


def archive(files: dict[str, str]) -> bytes:
    """Return a tar archive, with the zeroes at its end that busybox writes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def boot(*archives: bytes) -> run.Boot:
    return run.Boot(b"".join(archives), "(XEN) Xen version 4.17.7 (Debian)\n", 1.0)


def test_a_word_names_a_guest_and_its_settings() -> None:
    one = job.parse(f"{HELLO},name=x,vcpus=4,memory=64,cmdline=a b=c,ramdisk=LICENSE,seconds=9")
    assert one == job.Job("x", Path(HELLO), 4, 64, "a b=c", Path("LICENSE"), 9)
    assert job.parse(HELLO) == job.Job("hello", Path(HELLO))


@pytest.mark.parametrize("word", [HELLO, f"{HELLO},name=x,vcpus=4,cmdline=a b=c", f"{HELLO},ramdisk=LICENSE,seconds=9"])
def test_a_log_tells_the_word_it_was_made_by(word: str) -> None:
    assert job.parse(word).word == word


@pytest.mark.parametrize("setting", ["cpus=4", "vcpus=four", "name=a/b", 'cmdline="', "x"])
def test_words_that_make_no_sense_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=r"setting|invalid literal|a name is"):
        job.parse(f"{HELLO},{setting}")


def test_dom0_gets_a_folder_for_each_guest() -> None:
    jobs = [job.parse(str(ROOT / HELLO)), job.parse(f"{ROOT / HELLO},name=b,vcpus=2,ramdisk={ROOT / 'LICENSE'}")]
    files = {entry.path: entry.content for entry in job.entries(jobs)}
    assert (files["guests/10/name"], files["guests/11/name"]) == (b"hello\n", b"b\n")
    assert files["guests/10/kernel"] == files["guests/11/kernel"] == (ROOT / HELLO).read_bytes()
    assert files["guests/11/ramdisk"] == (ROOT / "LICENSE").read_bytes()
    assert "guests/10/ramdisk" not in files
    lines = files["guests/11/config"].decode().splitlines()
    assert {'type = "pvh"', "vcpus = 2", 'ramdisk = "/guests/11/ramdisk"', 'on_crash = "preserve"'} <= set(lines)


def test_archives_that_follow_one_another_become_logs() -> None:
    jobs = [job.parse(str(ROOT / HELLO)), job.parse(f"{ROOT / HELLO},name=b")]
    first = archive({"10/dmesg": "(XEN) x\n(d1) one\n(d1) \n(d1) two (d1) \\o/\n", "10/create": "made"})
    second = archive({"11/end": "Name ID\nb 2 32 1 --p--- 0.1 uuid - -\n"})
    a, b = run.logs({one: one.digest for one in jobs}, boot(archive({"versions": "Linux 6.1\n"}), first, second), FACTS)
    assert a.said() == ["one", "", "two (d1) \\o/"]
    assert a.reason is None
    assert b.said() == []
    assert b.reason is None
    assert a.facts["xen"] == "4.17.7 (Debian)"
    assert a.facts["dom0"] == "Linux 6.1"
    assert list(a.parts) == ["create", "dmesg"]


def test_a_guest_that_was_built_anew_while_it_ran_has_no_log() -> None:
    done = boot(archive({"10/dmesg": "(d1) one\n"}))
    assert run.logs({job.parse(str(ROOT / HELLO)): "of another"}, done, FACTS)[0].parts == {}


def test_the_reason_is_xls() -> None:
    row = "Name ID Mem VCPUs State Time(s) UUID Reason-Code Security Label\nb 2 32 1 ---s-- 0.1 1234-5678 3 -\n"
    assert job.Log({}, {"end": row}).reason == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_log_is_read_as_it_was_written(name: str) -> None:
    assert job.read(log_of(name).text()) == log_of(name)


def test_a_log_of_nothing_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nothing(_jobs: list[job.Job], _timeout: float) -> run.Boot:
        return boot(archive({"versions": "Linux"}))

    monkeypatch.setattr(run, "boot", nothing)
    assert run.main(["--logs", str(tmp_path), str(ROOT / HELLO)]) == 1


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a shell script in QEMU's place; $0 is the folder of its files."""
    monkeypatch.setattr(dom0, "base", lambda: b"")
    monkeypatch.setattr(dom0, "kernel", lambda: Path("/boot/vmlinuz"))

    def replace(script: str) -> None:
        def command(folder: Path) -> list[str]:
            return ["sh", "-c", script, os.fspath(folder)]

        monkeypatch.setattr(run, "command", command)

    return replace


def test_a_0_to_isa_debug_exit_ends_qemu_with_1_and_all_is_well(qemu: Callable[[str], None]) -> None:
    qemu("echo said >$0/console; echo sent >$0/results; exit 1")
    done = run.boot([], 5)
    assert (done.console, done.stream) == ("said\n", b"sent\n")


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ("echo panic >$0/console; exit 5", run.BROKEN, "QEMU ended with 5"),
        ("echo no such processor >&2; exit 3", run.BROKEN, "QEMU ended with 3: no such processor"),
        ("echo panic >$0/console; exec sleep 60", run.TIMED_OUT, "not done after 0.5 s"),
    ],
)
def test_any_other_end_is_a_failure(qemu: Callable[[str], None], script: str, status: int, text: str) -> None:
    qemu(script)
    done = run.boot([], 0.5)
    assert done.failure
    assert done.failure.status == status
    assert str(done.failure).startswith(text)


def test_a_failure_shows_the_console_and_keeps_the_logs_of_guests_that_were_done(
    qemu: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, cut = archive({"10/dmesg": "(d1) one\n"}), archive({"11/dmesg": "(d2) two\n"})
    (tmp_path / "sent").write_bytes(done + cut[:520])
    qemu(f"echo panic >$0/console; cp {tmp_path}/sent $0/results; exit 9")
    assert run.main(["--logs", str(tmp_path), str(ROOT / HELLO), f"{ROOT / HELLO},name=b"]) == run.BROKEN
    said = capsys.readouterr()
    assert "hello: 1 lines" in said.out
    assert "panic" in said.err
    assert "oracle: QEMU ended with 9" in said.err
    assert job.read((tmp_path / "hello.log").read_text()).said() == ["one"]


def test_a_machine_without_qemu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dom0, "base", lambda: b"")
    monkeypatch.setattr(dom0, "kernel", lambda: Path("/boot/vmlinuz"))
    monkeypatch.setattr(dom0, "xen", lambda: Path("/boot/xen"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert "not on PATH" in str(run.boot([], 5).failure)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_qemu_does_not_outlive_the_tool(tmp_path: Path, how: signal.Signals) -> None:
    """A process of its own, with a QEMU that says its process id and sleeps."""
    (tmp_path / "qemu-system-x86_64").write_text(f"#!/bin/sh\necho $$ >{tmp_path}/id\nexec sleep 60\n")
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    stub = (
        "from tools.oracle import dom0, run\n"
        "dom0.base = bytes\n"
        "dom0.kernel = dom0.xen = lambda: '/boot'\n"
        "run.main(['tests/guests/hello.elf'])"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, "-c", stub], cwd=ROOT, env=environment) as tool:
        while not (tmp_path / "id").exists() or not (qemu := (tmp_path / "id").read_text().strip()):
            time.sleep(0.01)
        tool.send_signal(how)
        assert tool.wait(10) in (run.TERMINATED, -how)
    until = time.monotonic() + 10
    while is_running(qemu) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_running(qemu)


def is_running(process: str) -> bool:
    """Whether there is such a process, and more of it than what its parent has not asked for yet."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
