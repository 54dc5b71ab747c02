"""vm_assist and physdev_op as a PVH domU may call them (facts/xen-abi.md, 10.3)."""

from __future__ import annotations

import pytest

from pvh.abi.hypercall import (
    DOMCTL,
    DOMID_SELF,
    HYPFS_OP,
    PHYSDEV_OP,
    PLATFORM_OP,
    SYSCTL,
    VCPU_OP,
    VM_ASSIST,
    XENPMU_OP,
)
from pvh.abi.vcpu_op import RUNSTATE_BLOCKED
from xen.guest import ARG, BUFFER, RAM, Guest

EPERM, ESRCH, EACCES, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP = 1, 3, 13, 14, 22, 38, 95
ENABLE, DISABLE, RUNSTATE_FLAG = 0, 1, 5


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 6, 31, 64, 0xFFFFFFFF])
@pytest.mark.parametrize("command", [ENABLE, DISABLE, 2])
def test_hvm_guests_have_one_assistance(guest: Guest, command: int, kind: int) -> None:
    assert guest.call(VM_ASSIST, command, kind) == -EINVAL


def test_it_is_switched_on_and_off(guest: Guest) -> None:
    assert [guest.call(VM_ASSIST, command, RUNSTATE_FLAG) for command in (ENABLE, DISABLE, 2)] == [0, 0, -ENOSYS]


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("enabled", [True, False])
def test_it_marks_the_entry_time_of_a_runstate_area_while_that_changes(
    guest: Guest, *, enabled: bool, crossing: bool
) -> None:
    """Bit 63 (XEN_RUNSTATE_UPDATE) is set first and cleared last: seen here by what is written, in order."""
    entry = 8 if guest.bits == 64 else 4
    area = BUFFER + (0x1000 - entry - 3 if crossing else 0)
    guest.call(VM_ASSIST, ENABLE if enabled else DISABLE, RUNSTATE_FLAG)
    guest.put("<Q", ARG, area)
    assert guest.call(VCPU_OP, 5, 0, ARG) == 0
    seen: list[int] = []
    write = guest.ram.write

    def watched(gpa: int, data: bytes | memoryview) -> bool:
        done = write(gpa, data)
        seen.append(guest.get("<Q", area + entry)[0] >> 63)
        return done

    guest.ram.write = watched  # type: ignore[method-assign]
    guest.host.tsc += 2_000_000
    guest.domain.note_runstate(0, RUNSTATE_BLOCKED)
    assert any(seen) == enabled
    assert not seen[-1]
    assert guest.get("<i", area) == (RUNSTATE_BLOCKED,)
    assert guest.get("<Q", area + entry) == (guest.domain.clock.now(),)


@pytest.mark.parametrize(("domid", "wanted"), [(DOMID_SELF, -EPERM), (1, -EPERM), (0, -EPERM), (2, -ESRCH)])
@pytest.mark.parametrize("command", [13, 14])
def test_interrupts_are_mapped_by_who_controls_the_domain(guest: Guest, command: int, domid: int, wanted: int) -> None:
    assert guest.op(PHYSDEV_OP, command, "<H2xiii", domid, 0, 0, 0) == wanted
    assert guest.call(PHYSDEV_OP, command, RAM) == -EFAULT


@pytest.mark.parametrize("command", [0, 4, 5, 10, 11, 12, 15, 23, 28, 31, 0xFFFFFFFF])
def test_without_pirqs_the_rest_is_not_there(guest: Guest, command: int) -> None:
    assert guest.call(PHYSDEV_OP, command, ARG) == -ENOSYS


@pytest.mark.parametrize(("number", "version"), [(PLATFORM_OP, 0x03000000), (SYSCTL, 0x15), (DOMCTL, 0x17)])
def test_calls_for_control_domains_look_at_the_version_first(guest: Guest, number: int, version: int) -> None:
    guest.put("<II", ARG, 1, version + 1)
    assert guest.call(number, ARG) == -EACCES
    guest.put("<II", ARG, 1, version)
    assert guest.call(number, ARG) == -EPERM
    assert guest.call(number, RAM) == -EFAULT


def test_what_is_refused_whatever_it_asks(guest: Guest) -> None:
    assert (guest.call(XENPMU_OP, 0, 0), guest.call(HYPFS_OP, 0)) == (-EOPNOTSUPP, -EPERM)
