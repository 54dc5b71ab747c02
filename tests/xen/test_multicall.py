"""multicall (xen/common/multicall.c): op, result, args[6], 64 bytes an entry, 32 for 32-bit callers."""

from __future__ import annotations

from pvh.abi.hypercall import HVM_OP, MULTICALL, SCHED_OP, VCPU_OP, XEN_VERSION
from xen.guest import ARG, BUFFER, RAM, Guest

EFAULT, EINVAL, ENOSYS = 14, 22, 38


def layout(guest: Guest) -> tuple[str, int]:
    return ("<8Q", 64) if guest.bits == 64 else ("<8I", 32)


def multicall(guest: Guest, *calls: tuple[int, ...], at: int = BUFFER) -> int:
    form, size = layout(guest)
    for index, call in enumerate(calls):
        guest.put(form, at + size * index, call[0], 0xAA, *(*call[1:], 0, 0, 0, 0, 0, 0)[:6])
    return guest.call(MULTICALL, at, len(calls))


def results(guest: Guest, count: int, at: int = BUFFER) -> list[int]:
    form, size = layout(guest)
    values = [guest.get(form, at + size * index)[1] for index in range(count)]
    return [value - (1 << guest.bits) if value >> guest.bits - 1 else value for value in values]


def test_each_call_has_its_result_beside_it(guest: Guest) -> None:
    calls = [(XEN_VERSION, 7, 0), (99,), (1 << 31,), (VCPU_OP, 3, 9, 0), (HVM_OP, 10, RAM), (HVM_OP, 10, ARG)]
    assert multicall(guest, *calls) == 0
    assert results(guest, 6) == [4096, -ENOSYS, -ENOSYS, -2, -EFAULT, 0]


def test_the_arguments_stay_as_they_were(guest: Guest) -> None:
    multicall(guest, (XEN_VERSION, 7, 0, 3, 4, 5, 6))
    form, _ = layout(guest)
    assert guest.get(form, BUFFER) == (XEN_VERSION, 4096, 7, 0, 3, 4, 5, 6)


def test_a_multicall_in_a_multicall_is_refused(guest: Guest) -> None:
    assert multicall(guest, (MULTICALL, BUFFER, 1), (XEN_VERSION, 7, 0)) == 0
    assert results(guest, 2) == [-EINVAL, 4096]


def test_none_is_no_call(guest: Guest) -> None:
    assert multicall(guest) == 0


def test_a_list_that_leaves_memory_gives_efault_after_what_came_before(guest: Guest) -> None:
    _, size = layout(guest)
    at = RAM - size
    assert multicall(guest, (XEN_VERSION, 7, 0), at=at) == 0
    guest.put(layout(guest)[0], at, XEN_VERSION, 0xAA, 7, 0, 0, 0, 0, 0)
    assert guest.call(MULTICALL, at, 0xFFFFFFFF) == -EFAULT
    assert results(guest, 1, at) == [4096]


def test_nothing_follows_a_shutdown(guest: Guest) -> None:
    guest.put("<I", ARG, 0)
    assert multicall(guest, (SCHED_OP, 2, ARG), (XEN_VERSION, 7, 0)) == 0
    assert results(guest, 2) == [0, 0xAA]
