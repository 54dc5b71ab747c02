"""The pytest plugin, in runs of pytest of its own, as somebody has it who installed pvh."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import elfwriter
import pvh
from elfwriter import Load
from pvh.engines.select import why_not

UD2 = bytes.fromhex("31c0 40 0f0b")  # xor eax, eax; inc eax; ud2: without an IDT, a triple fault
PASSES = """
import pytest

@pytest.mark.pvh(kernel="kernel.elf", memory="64M", timeout=60)
def test_it_passes(pvh_boot):
    guest = pvh_boot()
    guest.console.expect("Hello", timeout=20)
    assert guest.plan.options.memory == 64 << 20
    assert guest.wait(timeout=20).ending == "poweroff"
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a folder with two kernels, where warnings are errors and markers are to be known."""
    shutil.copy(pvh.demo_path(), pytester.path / "kernel.elf")
    loads = (Load(0x100000, UD2, memsz=0x1000), elfwriter.notes(elfwriter.entry_note()))
    (pytester.path / "dies.elf").write_bytes(elfwriter.Elf(loads).build())
    pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n")
    return pytester


def run(project: pytest.Pytester, code: str, *words: str, alone: bool = False) -> tuple[dict[str, int], str]:
    """Run a module's tests; return how many passed, failed and so on, and what was printed.

    A process of its own takes seconds; without one, modules that a run imports first are dropped at its end.
    """
    assert why_not("emulator") == ""
    project.makepyfile(test_it=code)
    start = project.runpytest_subprocess if alone else project.runpytest_inprocess
    result = start("-p", "no:cacheprovider", "-p", "no:cov", "-rs", *words)
    return {kind: count for kind, count in result.parseoutcomes().items() if count}, result.stdout.str()


def test_a_test_that_passes_shows_nothing(project: pytest.Pytester) -> None:
    outcomes, said = run(project, PASSES)
    assert outcomes == {"passed": 1}
    assert "pvh guest" not in said


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_test_that_fails_shows_its_guests(project: pytest.Pytester, words: tuple[str, ...]) -> None:
    code = (
        PASSES
        + """
@pytest.mark.pvh(kernel="dies.elf", engine="emulator")
def test_it_fails(pvh_boot):
    assert pvh_boot().wait(timeout=20).ending == "triple-fault"
    pvh_boot("kernel.elf").console.expect("Hello from PVH", timeout=20)
    pvh_boot(paused=True)
    assert pvh_boot.options is None
"""
    )
    outcomes, said = run(project, code, *words, alone=True)
    assert outcomes == {"passed": 1, "failed": 1}, said
    assert "guest 1, dies.elf on emulator: console -" in said
    assert "guest 2, kernel.elf on emulator: how it stands -" in said
    first, _, third = re.findall(r"how it stands -+\n(.*?\ntrace of every exit: \S+\n)", said, re.DOTALL)
    assert first.startswith("triple-fault, status 12, after ")
    assert "(it said nothing)" in said
    assert "Hello from PVH" in said
    assert re.search(r"^last instructions executed.*^    0x100002: 40 +inc eax$", first, re.MULTILINE | re.DOTALL)
    assert "=> 0x100003: 0f0b" in first
    assert third.startswith("it has not ended\nvCPU 0 at RIP 0x100000")
    trace = Path(first.rsplit(" ", 1)[1].strip())
    assert trace.name == "guest-1.jsonl"
    assert [json.loads(line)["exit"] for line in trace.read_text().splitlines()] == ["Shutdown"]


def test_guests_are_stopped_and_closed_at_the_end_of_each_test(project: pytest.Pytester) -> None:
    code = """
        import os, threading
        import pvh, pytest
        pytestmark = pytest.mark.pvh(kernel="kernel.elf", engine="emulator")
        kept = []

        def test_it_makes_some(pvh_boot):
            kept.extend([pvh_boot(paused=True), pvh_boot(paused=True)])
            kept.append(kept[0].clone(paused=True))
            kept.append(kept[2].clone(paused=True))
            kept.append(len(os.listdir("/proc/self/fd")))

        def test_they_are_gone():
            *guests, before = kept
            assert [guest.outcome.ending for guest in guests] == ["interrupted"] * 4
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("pvh")]
            assert len(os.listdir("/proc/self/fd")) <= before - 2  # the traces
            for guest in guests:
                with pytest.raises(pvh.PvhError, match="was closed"):
                    guest.read(0, 1)
    """
    outcomes, said = run(project, code, alone=True)
    assert outcomes == {"passed": 2}, said


def test_a_clone_is_shown_with_the_guest_it_is_of(project: pytest.Pytester) -> None:
    code = """
        import pvh
        def test_it_fails(pvh_boot):
            guest = pvh_boot("kernel.elf", pvh.BootOptions(engine="emulator"), paused=True)
            guest.clone().console.expect("never said", timeout=20)
    """
    outcomes, said = run(project, code)
    assert outcomes == {"failed": 1}
    assert "pvh guest 1, kernel.elf on emulator: how it stands" in said
    assert "pvh guest 2, kernel.elf on emulator: how it stands" in said
    assert said.count("trace of every exit") == 1, "a clone is not traced"


def test_a_guest_that_the_test_closed_is_shown_as_far_as_it_is_known(project: pytest.Pytester) -> None:
    code = """
        def test_it_fails(pvh_boot):
            with pvh_boot("dies.elf", __import__("pvh").BootOptions(engine="emulator")) as guest:
                guest.console.expect("more", timeout=20)
    """
    outcomes, said = run(project, code)
    assert outcomes == {"failed": 1}
    assert "where it stood is not known: this guest was closed" in said
    assert "last blocks executed, newest last: 0x100000" in said
    assert "def expect" not in said, "the user's line is shown, not ours"


def test_what_a_guest_says_cannot_reach_the_terminal_and_is_cut(project: pytest.Pytester) -> None:
    code = r"""
        import pvh
        def test_it_fails(pvh_boot):
            guest = pvh_boot("kernel.elf", paused=True)
            guest.console.hear(b"x" * 20000 + b"\x1b[31m\r\nend\n")
            raise AssertionError
    """
    _, said = run(project, code)
    assert "\\x1b[31m\nend\n" in said
    assert "\x1b" not in said
    (path,) = re.findall(r"\(the end of it; (\S+) has all\)", said)
    assert Path(path).read_text().startswith("x" * 20000)


def test_plans_images_and_the_nearest_marker(project: pytest.Pytester) -> None:
    code = """
        import pvh, pytest
        from pvh.record import replace
        pytestmark = pytest.mark.pvh(kernel="nowhere", cmdline="module", engine="emulator")

        @pytest.mark.pvh(kernel="kernel.elf", memory=32 << 20)
        class TestIt:
            @pytest.mark.pvh(memory="48MiB", vcpus=2)
            def test_it(self, pvh_boot):
                options = pvh_boot().plan.options
                assert (options.memory, options.vcpus, options.cmdline) == (48 << 20, 2, "module")
                plan = pvh.plan(pvh.read_kernel(pvh.demo_path()), replace(pvh_boot.options, cmdline="other"))
                for guest in (pvh_boot(plan), pvh_boot(pvh.build(plan)), pvh_boot(plan.kernel)):
                    assert guest.engine == "emulator"
                    guest.console.expect('"module"', '"other"', timeout=20)
    """
    outcomes, said = run(project, code)
    assert outcomes == {"passed": 1}, said


def test_all_engines_run_or_are_skipped_with_the_cause(project: pytest.Pytester) -> None:
    outcomes, said = run(project, PASSES, "--pvh-engine", "all")
    why = why_not("kvm")
    assert outcomes == ({"passed": 1, "skipped": 1} if why else {"passed": 2}), said
    assert f"kvm: {why}" in said.replace("\n", " ") or not why
    outcomes, said = run(project, PASSES.replace("timeout=60", "engine='kvm'"))
    assert outcomes == ({"skipped": 1} if why else {"passed": 1}), said
    outcomes, said = run(project, PASSES.replace("timeout=60", "engine='kvm'"), "--pvh-engine", "emulator")
    assert outcomes == {"skipped": 1}
    assert "this test is for kvm" in said


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm here")
def test_a_kvm_that_is_named_is_taken_whatever_its_probe_says(project: pytest.Pytester) -> None:
    code = PASSES.replace('"poweroff"', '"exit-port"').replace("pvh_boot()", "pvh_boot(); assert guest.engine == 'kvm'")
    shutil.copy(Path(__file__).parent / "guests" / "hello.elf", project.path / "kernel.elf")
    outcomes, said = run(project, code, "--pvh-engine", "kvm")
    assert outcomes == {"passed": 1}, said


def test_an_engine_that_is_named_has_to_be_there(project: pytest.Pytester) -> None:
    """A unicorn that cannot be imported lies before the real one."""
    (project.path / "unicorn.py").write_text("raise ImportError('hidden')\n")
    project.makepyfile(test_it=PASSES)
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-rs", "--pvh-engine"]
    done = project.run(sys.executable, *words, "emulator")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "--pvh-engine emulator: the emulator needs the unicorn package, which is not installed" in done.stderr.str()
    done = project.run(sys.executable, *words, "all", "-k", "emulator")
    done.assert_outcomes(skipped=1, deselected=1)
    assert "emulator: the emulator needs the unicorn package" in done.stdout.str().replace("\n", " ")


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ("memroy=1", "has no 'memroy': it takes kernel, memory, vcpus"),
        ("vcpus='two'", "(vcpus='two'): int is wanted"),
        ("cmdline=5", "(cmdline=5): str is wanted"),
        ("memory='64X'", "'64X' is no size"),
        ("engine='xen'", "engine='xen'): no such engine"),
        ("'kernel.elf'", "takes keywords alone"),
        ("", "no kernel: name one in @pytest.mark.pvh(kernel=...)"),
    ],
)
def test_a_marker_that_makes_no_sense_is_told(project: pytest.Pytester, marker: str, told: str) -> None:
    code = f"import pytest\n@pytest.mark.pvh({marker})\ndef test_it(pvh_boot):\n    pvh_boot()\n"
    outcomes, said = run(project, code)
    assert set(outcomes) <= {"failed", "errors"}
    assert told in said


def test_a_kernel_that_is_not_there_is_told_at_the_tests_line_alone(project: pytest.Pytester) -> None:
    code = """
        import pytest
        @pytest.mark.pvh(kernel="absent.elf")
        def test_it(pvh_boot):
            guest = pvh_boot()
    """
    outcomes, said = run(project, code)
    assert outcomes == {"failed": 1}
    shown = said.partition("FAILURES")[2].partition("short test summary")[0].splitlines()
    (error,) = (line for line in shown if line.startswith("E"))
    path = project.path / "absent.elf"
    assert error.endswith(f"{path}: there is no such kernel - build it before the tests run, or mend its path, which "
                          "counts from the folder of the test's file")  # fmt: skip
    assert ">       guest = pvh_boot()" in shown
    assert len(shown) <= 14, said


def test_a_kernel_that_is_none_is_told_at_the_tests_line_alone(project: pytest.Pytester) -> None:
    (project.path / "notes.elf").write_text("none")
    code = "import pytest\n@pytest.mark.pvh(kernel='notes.elf')\ndef test_it(pvh_boot):\n    pvh_boot()\n"
    outcomes, said = run(project, code)
    assert outcomes == {"failed": 1}
    assert "notes.elf: is a text file" in said
    assert "src/pvh" not in said


def test_it_costs_nothing_to_who_does_not_use_it(project: pytest.Pytester) -> None:
    code = """
        import sys
        def test_nothing_is_loaded():
            assert [name for name in sys.modules if name.startswith("pvh")] == ["pvh", "pvh.pytest_plugin"]
            assert "unicorn" not in sys.modules
    """
    outcomes, said = run(project, code, alone=True)
    assert outcomes == {"passed": 1}, said
