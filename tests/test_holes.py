"""Xen's own pages at frames that are no RAM: the machine gives them memory (XENMEM_add_to_physmap).

Linux puts its grant frames there: memory it takes from an address range that nothing else uses.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from engines.flat import MEMORY
from machines import call, run
from pvh.engines.select import choose
from pvh.errors import PvhError

if TYPE_CHECKING:
    from pvh.engines.engine import Engine
    from pvh.plan.options import EngineName

ARGUMENT = 0x21000
MEMORY_OP, ADD_TO_PHYSMAP = 12, 7
SHARED_INFO, GRANT_TABLE = 0, 1
FIRST, NEAR, FAR = MEMORY + 0x10000, MEMORY + 0x11000, 0x7FFFF000


@pytest.fixture(params=["emulator", "kvm"])
def engine(request: pytest.FixtureRequest) -> Engine:
    name: EngineName = request.param
    try:
        return choose(name, lambda _: None)
    except PvhError as error:
        pytest.skip(str(error))


def add(index: int) -> str:
    return call(MEMORY_OP, ADD_TO_PHYSMAP, ARGUMENT + 16 * index)


def request(space: int, gpa: int) -> bytes:
    return struct.pack("<HHIII", 0x7FF0, 0, space, 0, gpa >> 12)


@pytest.mark.parametrize("gpa", [FIRST, FAR])
def test_shared_info_appears_at_a_hole(engine: Engine, gpa: int) -> None:
    """vcpu_time_info's version is 2: the time is valid at once. Before, the hole read ones."""
    before = f"cmpl $-1, {gpa + 32}; jne 1f;"
    source = before + add(0) + f"movl {gpa + 32}, %eax; orl $0x10, {gpa + 0x800}; orl {gpa + 0x800}, %eax; 1:"
    outcome, _ = run(engine, source, {ARGUMENT: request(SHARED_INFO, gpa)})
    assert (outcome.ending, outcome.status) == ("exit-port", 0x12), outcome.reason


def test_pages_in_one_neighbourhood_and_what_is_around_them(engine: Engine) -> None:
    """Grant entry 0 is the console's (flags 1); beside the pages there is still nothing."""
    around = f"movl {FIRST - 4}, %eax; andl {NEAR + 0x1000}, %eax; incl %eax;"
    source = add(0) + add(1) + around + f"addl {NEAR + 32}, %eax; shll $4, %eax; orb {FIRST}, %al;"
    requests = request(GRANT_TABLE, FIRST) + request(SHARED_INFO, NEAR)
    outcome, _ = run(engine, source, {ARGUMENT: requests})
    assert (outcome.ending, outcome.status) == ("exit-port", 0x21), outcome.reason
