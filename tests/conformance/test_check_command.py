"""The command `pvh check`: where its page cannot go, what it shows meanwhile, and lines that make no sense."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pvh import demo_path
from pvh.cli import main

HELLO = demo_path()
QUICK = ["--profile", "no-acpi"]


class TestPage:
    """A page that cannot be written costs no verdicts."""

    def test_a_place_that_is_none_is_told_before_anything_runs(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        for path in (tmp_path, tmp_path / "no" / "page.html"):
            assert main(["check", *QUICK, "--html", str(path), HELLO]) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert "cannot write it" in said.err
            assert str(path) in said.err

    def test_it_overwrites_no_input(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        kernel, module = tmp_path / "kernel", tmp_path / "module"
        shutil.copy(HELLO, kernel)
        module.write_bytes(b"a module")
        for path in (kernel, module):
            words = ["check", *QUICK, "--module", str(module), "--html", str(path), str(kernel)]
            assert main(words) == 2
            assert "--html would overwrite an input" in capsys.readouterr().err
        assert kernel.read_bytes() == Path(HELLO).read_bytes()
        assert module.read_bytes() == b"a module"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this host has no /dev/full")
    def test_on_a_full_disk_there_are_verdicts_all_the_same(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", *QUICK, "--html", "/dev/full", HELLO]) == 2
        said = capsys.readouterr()
        assert "no-acpi" in said.out
        assert "upheld" in said.out
        assert "cannot write it: no space left on device" in said.err
        assert main(["check", *QUICK, "--json", "--html", "/dev/full", HELLO]) == 2
        assert json.loads(capsys.readouterr().out)["status"] == 0

    def test_a_page_for_standard_output_is_alone_there(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        assert main(["check", *QUICK, "--html", "-", HELLO]) == 0
        out = capfdbinary.readouterr().out
        assert out.startswith(b"<!doctype html>")
        assert out.rstrip().endswith(b"</html>")
        assert main(["check", *QUICK, "--html", "-", "--json", HELLO]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["check", "--jobs", "-1"],
        ["check", "--jobs", "0"],
        ["check", "--jobs", "two"],
        ["check", "--timeout", "nan"],
        ["check", "--timeout", "0"],
        ["check", "--timeout", "1e300"],
        ["check", "--seed", "x"],
        ["check", "--differential", "--timeout", "nan"],
        ["probe", "--timeout", "-1"],
        ["probe", "--timeout", "nan"],
        ["run", "--timeout", "-0.5"],
    ],
    ids=" ".join,
)
def test_numbers_that_are_none_are_refused(words: list[str]) -> None:
    last = "pvh-emulator" if words[0] == "probe" else HELLO
    done = subprocess.run(
        [sys.executable, "-m", "pvh", *words, last], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert words[-2] in done.stderr
    assert words[-1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this host has no terminals")
@pytest.mark.parametrize("words", [[], ["--json"]], ids=["text", "json"])
def test_at_a_terminal_each_stage_is_shown(words: list[str]) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "pvh", "check", *QUICK, *words, HELLO]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # EIO: nobody has the other end any more
            pass
        finally:
            os.close(ours)
        assert process.wait(60) == 0
    stages = ["reading ", "booting it as libxenguest does", "watching its first instructions", "1 of 2"]
    places = [shown.decode().find(stage) for stage in stages]
    assert places == sorted(places)
    assert shown.startswith(b"\r\x1b[Kreading ")
    assert shown.endswith(b"\r\x1b[K")
