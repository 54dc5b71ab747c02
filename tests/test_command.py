"""pvh.run_command: the command's status and output, by a boot and out of the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pvh
from pvh.cache import Cache

EMULATOR = pvh.BootOptions(memory=128 << 20, engine="emulator", timeout=120)


@pytest.mark.slow
def test_the_second_command_needs_no_boot(
    specimen: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVH_CACHE", str(tmp_path))
    kernel, busybox = str(specimen("vmlinuz-cloud-6.1")), str(specimen("busybox"))
    first = pvh.run_command(kernel, "echo one; exit 7", EMULATOR, busybox=busybox)
    again = pvh.run_command(kernel, "echo two; exit 200", EMULATOR, busybox=busybox)
    assert (first.status, first.output.split(), first.resumed) == (7, [b"one"], False)
    assert (again.status, again.output.split(), again.resumed) == (200, [b"two"], True)
    key = Cache(print).entries()[0].key
    (tmp_path / key / "guest").write_bytes(b"damaged")
    third = pvh.run_command(kernel, "cat", EMULATOR, busybox=busybox)  # it has no input
    assert (third.status, third.output, third.resumed) == (0, b"", False)
    assert any("damaged" in note for note in third.notes)


def test_what_is_no_linux_is_refused(specimen: Callable[[str], Path]) -> None:
    with pytest.raises(pvh.PvhError, match="does not say it is one"):
        pvh.run_command(pvh.demo_path(), "true", EMULATOR, busybox=str(specimen("busybox")), cache=False)


def test_time_that_is_up_is_an_error_with_its_outcome(specimen: Callable[[str], Path]) -> None:
    kernel, busybox = str(specimen("vmlinuz-cloud-6.1")), str(specimen("busybox"))
    options = pvh.BootOptions(engine="emulator", timeout=0.3)
    with pytest.raises(pvh.GuestEnded, match="told no status") as caught:
        pvh.run_command(kernel, "true", options, busybox=busybox, cache=False)
    assert caught.value.outcome.ending == "deadline"
