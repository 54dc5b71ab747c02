"""`pvh run` as people and scripts call it: console on standard output, the ending on standard error and as status."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from elfwriter import Elf, Load, entry_note, note, notes
from pvh.cli import main
from pvh.cli.run import _for_linux, _told_the_tsc
from pvh.kernel.read import read_kernel
from pvh.plan.options import BootOptions, Platform
from pvh.record import replace

ECHO = str(Path(__file__).resolve().parent.parent / "guests" / "echo.elf")
HELLO = str(Path(__file__).resolve().parent.parent / "guests" / "hello.elf")
PVH = [sys.executable, "-m", "pvh", "run", "--engine", "emulator"]


def here() -> list[str]:
    return ["emulator", *(["kvm"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else [])]


def run(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PVH, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_hello_says_so_and_leaves_with_its_status() -> None:
    done = run(HELLO)
    assert (done.returncode, done.stdout) == (0, "Hello from PVH\n")
    assert done.stderr.splitlines()[-1].startswith("pvh: exit-port after ")


def test_the_trace_is_json_lines_that_end_with_the_exit(tmp_path: Path) -> None:
    done = run("--trace", str(tmp_path / "t"), HELLO)
    lines = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    assert done.returncode == 0
    assert bytes(line["value"] for line in lines if line.get("port") == 0xE9).decode() == done.stdout
    assert lines[-1]["port"] == 0xF4


def test_a_trace_that_cannot_be_written_is_said_before_anything_runs(tmp_path: Path) -> None:
    done = run("--trace", str(tmp_path / "no" / "t"), HELLO)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot write the trace: no such file" in done.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e300", "soon"])
def test_a_timeout_is_a_span_of_time(seconds: str) -> None:
    done = run("--timeout", seconds, HELLO)
    assert done.returncode == 2
    assert "is no span of time" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_timeout_of_years_is_fine() -> None:
    assert run("--timeout", "1e9", HELLO).returncode == 0


IDLE = b"\xfb\xf4\xeb\xfd"  # sti; hlt; jmp -3
SEGMENTS = 0xC9B, 0xC93, 0xC93, 0xC93, 0x8B
BUSY = b"\xfb\xeb\xfe\xf4"  # sti; jmp -2; hlt
FOR_HLT = "pvh: idle: waiting for an interrupt in HLT at 0x100001: "


def second_spins(at: int) -> bytes:
    """Return code that starts vCPU 1 in an endless loop and idles: VCPUOP_initialise, VCPUOP_up."""
    load = "b818000000 bb%02x000000 b901000000 ba%s 0f01c1"  # eax vcpu_op, ebx command, ecx vCPU, edx context; vmcall
    context, loop = at + 0x80, at + 0x70
    edx = struct.pack("<I", context).hex()
    code = bytes.fromhex(load % (0, edx) + load % (1, edx)) + IDLE
    # struct vcpu_hvm_context, xen/include/public/hvm/hvm_vcpu.h, in its 32-bit mode, as docs/howto/smp.md has it
    rest = (1, 0, 0, 0, 0, 0, *[0] * 4, *[0xFFFFFFFF] * 4, 0, 0x67)
    words = struct.pack("<28I", 0, 0, *[0] * 8, loop, 2, *rest)
    return code.ljust(0x70, b"\x90") + b"\xeb\xfe".ljust(16) + words + struct.pack("<6H", *SEGMENTS, 0)


class TestDeadline:
    """Where it found a guest that sleeps is a line, with none of the registers and the code of an idle loop."""

    def told(self, engine: str, kernel: Path, *words: str) -> list[str]:
        command = [*PVH[:-1], engine, "--timeout", "0.5", *words, str(kernel)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
            run.wait(timeout=30)  # with the input still open: without, an idle guest would hang
            assert run.stderr
            told = run.stderr.read().decode().splitlines()
        assert run.returncode == 13
        first = next(
            at for at, line in enumerate(told) if line.startswith("pvh: deadline: ")
        )  # KVM may tell of a patch
        assert told[-1].startswith("pvh: deadline after ")
        return told[first + 1 : -1]

    @pytest.mark.parametrize("vcpus", ["1", "2"])
    @pytest.mark.parametrize("engine", here())
    def test_an_idle_guest(self, engine: str, vcpus: str, tmp_path: Path) -> None:
        (tmp_path / "idle").write_bytes(Elf((Load(data=IDLE), notes(entry_note()))).build())
        (line,) = self.told(engine, tmp_path / "idle", "--vcpus", vcpus)
        assert line.startswith(FOR_HLT)

    @pytest.mark.parametrize("engine", here())
    def test_a_busy_guest(self, engine: str, tmp_path: Path) -> None:
        (tmp_path / "busy").write_bytes(Elf((Load(data=BUSY), notes(entry_note()))).build())
        lines = self.told(engine, tmp_path / "busy")
        assert lines[0].startswith("pvh: vCPU 0 at RIP 0x100001")
        assert any(line.startswith("pvh: => 0x100001: ebfe") for line in lines)

    @pytest.mark.parametrize("engine", here())
    def test_a_guest_whose_second_vcpu_is_busy(self, engine: str, tmp_path: Path) -> None:
        (tmp_path / "half").write_bytes(Elf((Load(data=second_spins(0x100000)), notes(entry_note()))).build())
        lines = self.told(engine, tmp_path / "half", "--vcpus", "2")
        assert lines[0].startswith("pvh: vCPU 0 at RIP 0x")
        assert not any("idle:" in line for line in lines)


def test_a_console_that_cannot_be_written_ends_the_run() -> None:
    """`pvh run kernel | true`: the guest would otherwise write to nobody, for ever."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run([*PVH, HELLO], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "whoever read the console went away" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_orderly(number: signal.Signals, tmp_path: Path) -> None:
    """The guest waits in its console, a pipe that nobody reads; its ending is told none the less."""
    fifo = str(tmp_path / "trace")
    os.mkfifo(fifo)
    with subprocess.Popen([*PVH, "--trace", fifo, HELLO], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with open(fifo, "rb", buffering=0) as trace:
            assert trace.read(1)  # it runs
            process.send_signal(number)
            while trace.read(65536):
                pass
        _, told = process.communicate(timeout=60)
    # A guest this short may have ended itself before the signal came.
    assert process.returncode in (0, 130)
    assert b"Traceback" not in told
    assert (number.name.encode() in told) == (process.returncode == 130)


class TestOutputsAreNoInputs:
    """What a run would overwrite is looked at before anything is written."""

    @pytest.mark.parametrize("option", ["--core", "--trace"])
    def test_the_kernel(self, tmp_path: Path, option: str) -> None:
        kernel = tmp_path / "kernel"
        kernel.write_bytes(Path(HELLO).read_bytes())
        (tmp_path / "link").symlink_to(kernel)
        for name in "kernel", "link":
            done = run(option, str(tmp_path / name), str(kernel))
            assert (done.returncode, done.stdout) == (2, "")
            assert f"{option} would overwrite an input" in done.stderr
        assert kernel.read_bytes() == Path(HELLO).read_bytes()

    @pytest.mark.parametrize("option", ["--initrd", "--module", "--input"])
    def test_what_else_is_read(self, tmp_path: Path, option: str) -> None:
        (tmp_path / "file").write_bytes(b"precious")
        done = run("--core", str(tmp_path / "file"), option, str(tmp_path / "file"), HELLO)
        assert done.returncode == 2
        assert (tmp_path / "file").read_bytes() == b"precious"

    def test_one_file_for_both(self, tmp_path: Path) -> None:
        done = run("--core", str(tmp_path / "new"), "--trace", str(tmp_path / "new"), HELLO)
        assert done.returncode == 2
        assert "--core would overwrite the file of --trace" in done.stderr
        assert not (tmp_path / "new").exists()


class TestCoreThatCannotBeWritten:
    def test_it_is_said_before_anything_runs(self, tmp_path: Path) -> None:
        done = run("--core", str(tmp_path / "no" / "core"), HELLO)
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot write the core: no such file" in done.stderr

    def test_what_was_there_stays_until_there_is_a_core(self, tmp_path: Path) -> None:
        (tmp_path / "core").write_bytes(b"of the run before")
        done = run("--core", str(tmp_path / "core"), str(tmp_path / "no kernel"))
        assert done.returncode == 2
        assert (tmp_path / "core").read_bytes() == b"of the run before"

    def test_on_a_full_disk_the_ending_is_told_all_the_same(self) -> None:
        done = run("--core", "/dev/full", HELLO)
        assert (done.returncode, done.stdout) == (2, "Hello from PVH\n")
        assert "no space" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("pvh: exit-port after ")

    def test_the_guests_status_stays_where_it_is_none_of_success(self) -> None:
        done = run("--core", "/dev/full", ECHO)  # without input it hangs
        assert done.returncode == 13
        assert done.stderr.splitlines()[-1].startswith("pvh: hang after ")


def test_what_is_read_and_not_mapped_is_told_with_the_reason(tmp_path: Path) -> None:
    module = tmp_path / "module"
    module.write_bytes(bytes(1 << 20))
    assert "not mapped" not in run("--module", str(module), HELLO).stderr
    module.chmod(0o666)
    assert (
        f"note: {module}: read, not mapped, as other users may write it" in run("--module", str(module), HELLO).stderr
    )


class TestSignals:
    """A guest that does not listen to control/shutdown is stopped by the first; status 130."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_sleeping_guest_is_stopped(self, number: signal.Signals) -> None:
        with subprocess.Popen(
            [*PVH, ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == b"echo is ready\n"
            process.send_signal(number)
            process.wait(timeout=4)  # with the input still open: at its end this guest would hang
            assert process.stderr
            told = process.stderr.read()
        assert process.returncode == 130
        assert told.splitlines()[-1].endswith(number.name.encode() + b" came")

    def test_what_was_ignored_from_the_start_stays_so(self) -> None:
        """nohup, and the background jobs of scripts."""
        words = ["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh", *PVH, ECHO]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"echo is ready\n"
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGINT)
            process.communicate(b"\x04", timeout=20)
        assert process.returncode == 0


class TestConsoleOfLinux:
    """A Linux whose command line names no console gets Xen's (issue 4)."""

    @staticmethod
    def options(cmdline: str, *, linux: bool = True, platform: Platform = "xen") -> str:
        kernel = replace(read_kernel(HELLO), linux_version="6.1" if linux else "")
        return _for_linux(BootOptions(cmdline=cmdline, platform=platform), kernel).cmdline

    @pytest.mark.parametrize(
        ("given", "made"),
        [
            ("", "console=hvc0"),
            ("quiet", "quiet console=hvc0"),
            ("quiet -- single", "quiet console=hvc0 -- single"),
            ("netconsole=x", "netconsole=x console=hvc0"),
            ("console=tty0", "console=tty0"),
            ("a console=ttyS0,115200 b", "a console=ttyS0,115200 b"),
        ],
    )
    def test_it_is_appended(self, given: str, made: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.options(given) == made
        assert ("console=hvc0 is added" in capsys.readouterr().err) == (given != made)

    def test_to_a_linux_on_xen_only(self) -> None:
        assert self.options("quiet", linux=False) == "quiet"
        assert self.options("quiet", platform="bare") == "quiet"

    def test_the_note_tells_a_linux_too(self, tmp_path: Path) -> None:
        """GUEST_OS of public/elfnote.h; a kernel may be no bzImage."""
        data = entry_note() + note(6, b"linux\0")
        (tmp_path / "vmlinux").write_bytes(Elf((Load(), notes(data))).build())
        kernel = read_kernel(str(tmp_path / "vmlinux"))
        assert _for_linux(BootOptions(), kernel).cmdline == "console=hvc0"


def test_a_linux_on_a_bare_board_is_told_the_tscs_frequency(capsys: pytest.CaptureFixture[str]) -> None:
    """What is given counts; what stands behind -- is the init's."""
    made = _told_the_tsc(BootOptions(cmdline="quiet -- x"), 2_500_000)
    assert made.cmdline == "quiet tsc_early_khz=2500000 -- x"
    assert "tsc_early_khz=2500000 is added" in capsys.readouterr().err
    given = BootOptions(cmdline="a tsc_early_khz=7")
    assert _told_the_tsc(given, 2_500_000) is given


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--wait"], "--wait is for gdb, and there is no --gdb"),
        (["--busybox", "/bin/sh"], "--busybox is for --exec, and there is no --exec"),
        (["--no-cache"], "--no-cache is for --exec, and there is no --exec"),
        (["--timeline", "x.txt"], "x.txt: a timeline is .html for a browser, or .json for Perfetto"),
    ],
)
def test_options_that_mean_nothing_alone_are_the_first_thing_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words, "/nonexistent"]) == 2
    assert capsys.readouterr().err == f"pvh: {said}\n"


def test_a_run_whose_trace_a_full_disk_cut_is_no_success(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "demo", "--engine", "emulator", "--input", os.devnull, "--trace", "/dev/full"]) == 14
    out, err = capfd.readouterr()
    assert "Powering off" in out, "the guest goes on"
    assert err.count("/dev/full: the trace ends here: no space left on device") == 1
