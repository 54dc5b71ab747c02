"""A person at a guest: a real terminal (a pty), pipes, files; the guest gives back what it is given (echo.S)."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pvh.cli.terminal import feed, open_input, stamped
from pvh.devices.typed import Typed
from pvh.errors import UsageError

ECHO = str(Path(__file__).resolve().parent.parent / "guests" / "echo.elf")
PVH = [sys.executable, "-m", "pvh", "run", "--engine", "emulator", "--timeout", "30"]
READY = b"echo is ready\n"
LEFT = "every key goes to the guest; ^] leaves it"


class AtTerminal:
    """pvh run with a terminal for standard input and output, and what a person sees and does there."""

    def __init__(self, *words: str, job: bool = False) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        slave = self.slave
        self.process = subprocess.Popen(
            [*PVH, *words, ECHO], stdin=slave, stdout=slave, stderr=subprocess.PIPE, start_new_session=job,
        )  # fmt: skip
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def see(self, text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0], self.seen
            self.seen += os.read(self.master, 4096)

    def end(self) -> str:
        """Wait for the end; return what was said on standard error."""
        _, told = self.process.communicate(timeout=20)
        return told.decode()

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ISIG | termios.ECHO)

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def at_terminal() -> Iterator[Callable[..., AtTerminal]]:
    made: list[AtTerminal] = []

    def start(*words: str) -> AtTerminal:
        made.append(AtTerminal(*words))
        made[-1].see(b"echo is ready\r\n")
        return made[-1]

    yield start
    for one in made:
        one.close()


class TestTerminal:
    def test_keys_go_to_the_guest_one_by_one_and_ctrl_c_is_one_of_them(
        self, at_terminal: Callable[..., AtTerminal]
    ) -> None:
        here = at_terminal()
        assert here.is_raw()
        for key in b"a\r\x03\x1a\x11Z":
            here.type(bytes((key,)))
            here.see(bytes((key,)))
        here.type(b"\x04")
        told = here.end()
        assert here.seen == b"echo is ready\r\na\r\x03\x1a\x11Z"
        assert (here.process.returncode, told.count(LEFT)) == (0, 1)
        assert here.is_restored()

    def test_the_escape_leaves_and_is_not_the_guests(self, at_terminal: Callable[..., AtTerminal]) -> None:
        here = at_terminal()
        here.type(b"ab")
        here.see(b"ab")
        here.type(b"\x1d")
        assert "^] was typed" in here.end()
        assert here.process.returncode == 130
        assert here.is_restored()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGSEGV])
    def test_whatever_ends_us_the_terminal_is_restored(
        self, at_terminal: Callable[..., AtTerminal], number: signal.Signals
    ) -> None:
        """A process that is killed does nothing more itself."""
        here = at_terminal()
        here.process.send_signal(number)
        told = here.end()
        if number in (signal.SIGTERM, signal.SIGHUP):
            assert here.process.returncode == 130
            assert f"{number.name} came" in told
        deadline = time.monotonic() + 10
        while not here.is_restored() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert here.is_restored()

    def test_a_job_that_was_stopped_goes_on_raw(self, at_terminal: Callable[..., AtTerminal]) -> None:
        """The shell gives the terminal its own settings in between."""
        here = at_terminal()
        here.process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(here.slave, termios.TCSANOW, here.before)
        here.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 10
        while not here.is_raw() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert here.is_raw()
        here.type(b"\x04")
        here.end()
        assert here.is_restored()

    def test_with_output_elsewhere_the_terminal_stays_as_it_is(self) -> None:
        """`pvh run kernel | tee log`: whole lines go to the guest, and ^C is ours."""
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        with subprocess.Popen([*PVH, ECHO], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == READY
            assert termios.tcgetattr(slave) == before
            os.write(master, b"line\n")
            assert process.stdout.readline() == b"line\n"
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
        os.close(master)
        os.close(slave)
        assert process.returncode == 130
        assert LEFT.encode() not in told


def run(*words: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """given: through a pipe; None: /dev/null."""
    command = [*PVH, *words, ECHO]
    if given is None:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)


class TestPipesAndFiles:
    def test_more_than_every_buffer_comes_through_a_pipe_unchanged(self) -> None:
        """Rings of 1024 and 2048 bytes; what does not fit waits."""
        data = bytes(byte for byte in range(256) if byte not in b"\x04\x12") * 500
        done = run(given=data + b"\x04")
        assert (done.returncode, done.stdout) == (0, READY + data)

    def test_input_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "keys").write_bytes(b"from a file\x04")
        done = run("--input", str(tmp_path / "keys"), given=b"not this")
        assert (done.returncode, done.stdout) == (0, READY + b"from a file")

    def test_an_input_that_is_not_there(self) -> None:
        done = run("--input", "/no/such")
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"/no/such: cannot read the input: no such file" in done.stderr

    def test_a_sleeping_guest_waits_for_what_may_be_typed(self) -> None:
        with subprocess.Popen([*PVH, ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == READY
            for line in b"one\n", b"two\n":
                time.sleep(0.1)
                process.stdin.write(line)
                process.stdin.flush()
                assert process.stdout.readline() == line
            process.stdin.write(b"\x04")
        assert process.returncode == 0

    @pytest.mark.parametrize("given", [None, b"", b"text"])
    def test_a_sleeping_guest_that_nobody_can_wake_hangs(self, given: bytes | None) -> None:
        done = run(given=given)
        assert (done.returncode, done.stdout) == (13, READY + (given or b""))
        assert b"hang after" in done.stderr

    def test_without_standard_input(self) -> None:
        done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *PVH, ECHO], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (13, READY)

    def test_a_kernel_from_standard_input_leaves_none_for_the_guest(self) -> None:
        kernel = Path(ECHO).read_bytes()
        done = subprocess.run([*PVH, "-"], input=kernel, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (13, READY)


class TestOutput:
    def test_output_that_does_not_block_is_complete(self) -> None:
        """Somebody set O_NONBLOCK on the pipe, and it is full most of the time."""
        data = b"0123456789abcde\n" * 20_000
        read, write = os.pipe()
        os.set_blocking(write, False)
        with subprocess.Popen([*PVH, ECHO], stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE) as process:
            os.close(write)
            assert process.stdin
            got = bytearray()
            pending = memoryview(data + b"\x04")
            os.set_blocking(process.stdin.fileno(), False)
            while part := self.exchange(process.stdin.fileno() if pending else None, read, pending):
                sent, chunk = part
                pending = pending[sent:]
                got += chunk
            process.communicate(timeout=20)
        os.close(read)
        assert process.returncode == 0
        assert got == READY + data

    @staticmethod
    def exchange(write: int | None, read: int, data: memoryview) -> tuple[int, bytes] | None:
        """Write and read what is possible; None at the end of what can be read."""
        readable, writable, _ = select.select([read], [write] if write is not None else [], [], 20)
        chunk = os.read(read, 4096) if readable else b""
        if readable and not chunk:
            return None
        return os.write(writable[0], data[:4096]) if writable else 0, chunk

    def test_timestamps_stand_before_each_line(self) -> None:
        done = run("--timestamps", given=b"one\ntwo\x04")
        stamp = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} "
        assert re.fullmatch(stamp + b"echo is ready\n" + stamp + b"one\n" + stamp + b"two", done.stdout)

    def test_a_line_in_pieces_has_one_stamp(self) -> None:
        said = list[bytes]()
        write = stamped(said.append)
        for piece in b"a", b"b\r", b"\nc", b"\n", b"\n":
            write(piece)
        text = re.sub(rb"\d{4}-\S+ ", b"@", b"".join(said))
        assert text == b"@ab\r\n@c\n@\n"


class TestReboot:
    def test_a_reboot_ends_the_run_by_default(self) -> None:
        done = run(given=b"a\x12b\x04")
        assert (done.returncode, done.stdout) == (10, READY + b"a")

    def test_it_starts_again_when_asked_to(self) -> None:
        """What was typed is for whoever reads it: each guest takes what its ring holds."""
        with subprocess.Popen(
            [*PVH, "--on-reboot", "restart", ECHO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin
            assert process.stdout
            for keys in b"\x12", b"\x12", b"\x04":
                assert process.stdout.readline() == READY
                process.stdin.write(keys)
                process.stdin.flush()
            rest, told = process.communicate(timeout=20)
        assert (process.returncode, rest) == (0, b"")
        assert told.count(b"and starts again") == 2

    def test_the_deadline_is_for_all_of_them(self) -> None:
        with subprocess.Popen(
            [*PVH, "--timeout", "1", "--on-reboot", "restart", ECHO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == READY
            time.sleep(0.6)
            process.stdin.write(b"\x12")
            process.stdin.flush()
            _, told = process.communicate(timeout=20)
        first, last = (float(seconds) for seconds in re.findall(rb"after (\d+\.\d+) s", told))
        assert process.returncode == 13
        assert first + last < 1.2


class TestFeed:
    """What is read, in the order it is given to the guest."""

    @staticmethod
    def fed(data: bytes, end: bytes = b"") -> bytes:
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        typed = Typed()
        feed(read, typed, end=end)
        os.close(read)
        assert not typed.open
        return typed.take(10_000)

    def test_the_end_of_input_is_told_twice_behind_half_a_line(self) -> None:
        """termios(3), EOF: in a line that has begun it only hands that line over."""
        assert self.fed(b"line\n", end=b"\x04") == b"line\n\x04"
        assert self.fed(b"line\nhalf", end=b"\x04") == b"line\nhalf\x04\x04"
        assert self.fed(b"", end=b"\x04") == b"\x04"
        assert self.fed(b"half") == b"half"

    def test_a_line_in_pieces_comes_whole(self) -> None:
        """What a program writes byte by byte; and half a line does come when nothing follows for a while."""
        read, write = os.pipe()
        puts = list[bytes]()

        class Noting(Typed):
            def put(self, data: bytes, *, wait: bool = True) -> None:
                del wait
                puts.append(data)

        child = os.fork()
        if not child:
            for byte in b"whole\nha":
                os.write(write, bytes((byte,)))
            time.sleep(0.4)
            os.write(write, b"lf")
            os._exit(0)
        os.close(write)
        feed(read, Noting())
        os.waitpid(child, 0)
        os.close(read)
        assert puts[0].startswith(b"whole\n")
        assert puts[-1] == b"lf"


def test_a_missing_input_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot read the input"):
        open_input("/no/such", taken=False)


def test_standard_input_that_is_used_otherwise_is_none() -> None:
    assert open_input(None, taken=True) is None
