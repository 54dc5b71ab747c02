"""Opening /dev/kvm: each way it can be missing has its own sentence and its own remedy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pvh.engines.kvm import device
from pvh.engines.kvm import ioctl as kvm
from pvh.errors import NoEngine


class Refusal:
    """Stands for os.open, and fails."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, *_: object) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "cause", "hint"),
    [
        (errno.ENOENT, "there is no /dev/kvm", "load kvm_intel or kvm_amd"),
        (errno.EACCES, "may not be opened by this user", "usermod -aG kvm"),
        (errno.ENODEV, "no driver", "load kvm_intel"),
        (errno.EBUSY, "another hypervisor", "stop it"),
        (errno.EMFILE, "too many open files", "--engine emulator"),
    ],
)
def test_why_not_and_what_to_do(number: int, cause: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "6", "v", "x86_64")))
    monkeypatch.setattr(os, "open", Refusal(number))
    with pytest.raises(NoEngine, match=cause) as caught:
        device.open_device()
    assert hint in str(caught.value)
    assert caught.value.status == 21


def test_a_file_that_is_no_kvm_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "kvm"
    other.write_bytes(b"")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NoEngine, match="is not a KVM device"):
        device.open_device(str(other))
    assert os.listdir("/proc/self/fd") == before, "and closed again"


def test_another_architecture_cannot_run_x86_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "6", "v", "aarch64")))
    with pytest.raises(NoEngine, match="aarch64"):
        device.open_device()


def test_an_old_kernel_is_told_the_release_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_fd: int, request: int, argument: int = 0) -> int:
        if request == kvm.GET_API_VERSION:
            return 12
        return int(argument not in (kvm.CAP_X86_USER_SPACE_MSR, 74))

    monkeypatch.setattr(kvm, "call", answer)
    with pytest.raises(NoEngine, match="lacks KVM_CAP_SYNC_REGS, KVM_CAP_X86_USER_SPACE_MSR") as caught:
        device._check(0, "/dev/kvm")
    assert "5.10" in str(caught.value)


def test_another_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def newer(_fd: int, _request: int) -> int:
        return 13

    monkeypatch.setattr(kvm, "call", newer)
    with pytest.raises(NoEngine, match="version 13"):
        device._check(0, "/dev/kvm")
