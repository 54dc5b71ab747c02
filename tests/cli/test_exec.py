"""`pvh run --exec`: the command's status is the run's, and nothing else is taken for it."""

from __future__ import annotations

import json
import re
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from elfwriter import PT_INTERP, Elf, Load
from pvh.cli import exec as exec_
from pvh.cli.exec import Errand, exit_status, for_command
from pvh.clock import HostClock
from pvh.errors import UsageError
from pvh.outcome import Ending, Outcome
from pvh.plan.options import BootOptions, ModuleSpec

HELLO = str(Path(__file__).resolve().parent.parent / "guests" / "hello.elf")
PVH = [sys.executable, "-m", "pvh", "run", "--engine", "emulator", "--timeout", "120"]
STATIC = Elf()


def written(path: Path, elf: Elf) -> str:
    path.write_bytes(elf.build())
    return str(path)


@pytest.fixture
def busybox(tmp_path: Path) -> str:
    """A program that needs no other file, as far as its headers tell."""
    return written(tmp_path / "busybox", STATIC)


def members(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read newc records (Linux, early-userspace/buffer-format.rst): mode and content by path."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while "TRAILER!!!" not in found:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        content = (at + 110 + fields[11] + 3) & ~3
        found[data[at + 110 : at + 109 + fields[11]].decode()] = fields[1], data[content : content + fields[6]]
        at = (content + fields[6] + 3) & ~3
    return found


def initramfs(options: BootOptions) -> bytes:
    return Path(options.modules[0].path).read_bytes()


class TestInitramfs:
    def test_it_has_our_init_the_command_and_busybox_as_shell(self, busybox: str) -> None:
        found = members(initramfs(for_command(BootOptions(), busybox)))
        assert found["init"][0] == stat.S_IFREG | 0o755
        assert found["init"][1].startswith(b"\x7fELF")
        assert found["setup"][1] == b"/bin/busybox --install -s\n"
        assert found["bin/busybox"] == (stat.S_IFREG | 0o755, STATIC.build())
        assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
        assert all(stat.S_ISDIR(found[folder][0]) for folder in ("dev", "proc", "sys", "tmp"))

    @pytest.mark.parametrize("size", [0, 1, 4, 5])
    def test_behind_an_initrd_it_replaces_only_the_init(self, tmp_path: Path, size: int) -> None:
        """Linux unpacks archives one after the other, each at a multiple of four (init/initramfs.c)."""
        initrd = tmp_path / "initrd"
        initrd.write_bytes(b"x" * size)
        given = BootOptions(modules=(ModuleSpec(str(initrd), "words"), ModuleSpec(HELLO)))
        options = for_command(given, None)
        data = initramfs(options)
        assert data[:size] == b"x" * size
        found = members(data[-(-size // 4) * 4 :])
        assert "bin/sh" not in found
        assert "setup" not in found
        assert options.modules[0].cmdline == "words"
        assert options.modules[1:] == given.modules[1:]

    def test_an_initrd_and_a_busybox_are_one_too_many(self, busybox: str) -> None:
        with pytest.raises(UsageError, match="--busybox goes with none"):
            for_command(BootOptions(modules=(ModuleSpec(HELLO),)), busybox)

    def test_a_command_has_linuxs_limit(self) -> None:
        """MAX_ARG_STRLEN, 131072 bytes with the NUL."""
        Errand(HELLO, BootOptions(), "x" * 131071, "none")
        with pytest.raises(UsageError, match="too long"):
            Errand(HELLO, BootOptions(), "é" * 65536, "none")


class TestShell:
    @pytest.mark.parametrize(
        ("elf", "reason"),
        [
            (Elf((Load(), Load(type=PT_INTERP, data=b"/lib64/ld.so\0"))), "is dynamically linked"),
            (Elf(bits=32), "is no program for x86-64"),
            (Elf(header={"machine": 183}), "is no program for x86-64"),
            (Elf(header={"phnum": 9999}), ""),
        ],
    )
    def test_one_that_cannot_run_by_itself_is_refused(self, tmp_path: Path, elf: Elf, reason: str) -> None:
        with pytest.raises(UsageError, match=f"{reason}.*cannot be --exec's shell") as refused:
            for_command(BootOptions(), written(tmp_path / "shell", elf))
        assert "busybox-static" in str(refused.value)

    def test_a_script_is_no_program(self, tmp_path: Path) -> None:
        (tmp_path / "sh").write_text("#!/bin/sh\n")
        with pytest.raises(UsageError, match="is no ELF program"):
            for_command(BootOptions(), str(tmp_path / "sh"))

    def test_the_first_static_one_of_the_hosts_is_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busybox: str
    ) -> None:
        dynamic = written(tmp_path / "dynamic", Elf((Load(), Load(type=PT_INTERP, data=b"/lib64/ld.so\0"))))
        monkeypatch.setattr(exec_, "_PLACES", (str(tmp_path / "absent"), dynamic, busybox))
        found = members(initramfs(for_command(BootOptions(), None)))
        assert found["bin/busybox"][1] == STATIC.build()
        monkeypatch.setattr(exec_, "_PLACES", (dynamic,))
        with pytest.raises(UsageError, match="is dynamically linked"):
            for_command(BootOptions(), None)
        monkeypatch.setattr(exec_, "_PLACES", ())
        with pytest.raises(UsageError, match="no static busybox - install Debian's busybox-static"):
            for_command(BootOptions(), None)


class TestCommandLine:
    @pytest.mark.parametrize(
        ("given", "made"),
        [
            ("", "console=hvc0 quiet loglevel=1"),
            ("loglevel=7", "console=hvc0 quiet loglevel=1 loglevel=7"),
            ("console=ttyS0 x", "quiet loglevel=1 console=ttyS0 x"),
            ('a="b  c"', 'console=hvc0 quiet loglevel=1 a="b  c"'),
        ],
    )
    def test_what_is_given_comes_last(self, busybox: str, given: str, made: str) -> None:
        assert for_command(BootOptions(cmdline=given), busybox).cmdline == made

    def test_the_init_is_told_the_time_something_random_and_where_input_comes_from(self) -> None:
        """struct timespec; struct rand_pool_info (linux/random.h), 256 bits in 32 bytes; input; length; the command."""
        orders = [
            Errand(HELLO, BootOptions(), "true", source).order(HostClock()) for source in ("keys", "pipe", "none")
        ]
        fields = [struct.unpack("<QQII32sII", order[:64]) for order in orders]
        assert all(abs(seconds + ns / 1e9 - time.time()) < 60 for seconds, ns, *_ in fields)
        assert [field[2:4] for field in fields] == [(256, 32)] * 3
        assert len({field[4] for field in fields}) == 3
        assert [field[5:] for field in fields] == [(0, 4), (1, 4), (2, 4)]
        assert all(order[64:] == b"true" for order in orders)

    def test_without_xen_it_is_refused(self, busybox: str) -> None:
        with pytest.raises(UsageError, match=r"serial port has no interrupt.*leave --platform bare out"):
            for_command(BootOptions(platform="bare"), busybox)


@pytest.mark.parametrize(
    ("ending", "told", "status"),
    [
        *[("exit-port", status, status) for status in (0, 1, 77, 124)],
        *[("exit-port", status, 126) for status in (125, 126, 127, 137, 255)],
        *[(ending, 0, 125) for ending in ("poweroff", "reboot", "crash", "triple-fault", "deadline", "hang", "engine")],
        ("interrupted", 130, 130),
        ("interrupted", 141, 141),
    ],
)
def test_exit_status(ending: Ending, told: int, status: int) -> None:
    said = list[str]()
    assert exit_status(Outcome(ending, told, "", "emulator"), said.append) == status
    assert bool(said) == (status in (125, 126))
    assert status != 126 or str(told) in said[0]


@pytest.mark.parametrize(
    "words",
    [
        ["--exec", "true"],  # no kernel
        ["--exec", "true", "/no/such"],
        ["--exec=true", "--bogus", HELLO],
        ["--exec", "true", HELLO],  # no Linux
        ["--exec", "true", __file__],
    ],
)
def test_whatever_fails_before_the_command_has_one_status(words: Sequence[str]) -> None:
    done = subprocess.run([*PVH, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_no_failure() -> None:
    done = subprocess.run([*PVH, "--exec", "true", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "125 if pvh or the guest failed" in " ".join(done.stdout.split())


class TestLinux:
    """Debian's cloud kernel on the emulator: about five seconds a boot."""

    @pytest.fixture
    def command(self, specimen: Callable[[str], Path]) -> Callable[[str], list[str]]:
        kernel, busybox = str(specimen("vmlinuz-cloud-6.1")), str(specimen("busybox"))
        return lambda text: [*PVH, "--busybox", busybox, kernel, "--exec", text]

    def test_input_output_and_status_are_the_commands(self, command: Callable[[str], list[str]]) -> None:
        """Output is as it was written, without the terminal's carriage returns; input ends, also behind half a line."""
        text = "uname -s; tty; cat; echo 'to the other' >&2; printf 'a\\tb'; exit 42"
        given = b"one\nwithout an end"
        done = subprocess.run(command(text), input=given, capture_output=True, timeout=120, check=False)
        assert done.stdout == b"Linux\n/dev/hvc0\n" + given + b"to the other\na\tb"
        assert done.returncode == 42
        assert done.stderr.splitlines()[-1].startswith(b"pvh: exit-port after ")

    def test_a_status_that_is_none_of_ours_to_pass_on(self, command: Callable[[str], list[str]]) -> None:
        """A shell that a signal ended: what it wrote is told all the same. Without input, that ends at once."""
        done = subprocess.run(
            command("cat; cat; echo here; kill -KILL $$"), stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (126, b"here\n")
        assert b"the command's status was 137" in done.stderr

    def test_a_signal_has_it_power_off(self, command: Callable[[str], list[str]]) -> None:
        with subprocess.Popen(
            command("echo up; sleep 1000"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == b"up\n"
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=60)
        assert process.returncode == 130, told
        assert b"SIGTERM came: the guest is asked to power off" in told
        assert told.splitlines()[-1].startswith(b"pvh: poweroff after ")

    def test_a_second_command_finds_the_guest_booted(
        self, command: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next run has no boot in it, its own command and input, the right time, and other random numbers."""
        monkeypatch.setenv("PVH_CACHE", str(tmp_path / "cache"))

        def run(text: str, *more: str) -> tuple[list[str], float]:
            done = subprocess.run(
                [*command(text), *more], input="in\n", capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 5, done.stderr
            (told,) = re.findall(r"exit-port after ([0-9.]+) s", done.stderr)
            return done.stdout.splitlines(), float(told)

        show = "read x; date +%s; cat /proc/sys/kernel/random/uuid; exit 5"
        (first, uuid), booted = run(show)
        (second, other), resumed = run(show)
        assert resumed < booted
        assert uuid != other
        assert abs(time.time() - int(second)) < 30
        assert int(first) <= int(second)
        assert run("cat; exit 5")[0] == ["in"]
        (entry,) = json.loads(subprocess.check_output([*PVH[:3], "cache", "list", "--json"]))["entries"]
        assert entry["vcpus"] == 1
        with (tmp_path / "cache" / entry["key"] / "guest").open("r+b") as file:
            file.write(b"0" * 80)
        done = subprocess.run([*command("exit 5"), "--no-cache"], capture_output=True, text=True, check=False)
        assert (done.returncode, "boot cache" in done.stderr) == (5, False)
        done = subprocess.run(command("exit 5"), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("from the boot cache: it is damaged")) == (5, 1)
        assert subprocess.check_output([*PVH[:3], "cache", "clear"], text=True).startswith("1 removed")
