"""Time as a guest computes it (facts/xen-abi.md, 10.4; vcpu_time_info of public/xen.h)."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from pvh.xen.clock import Clock, scale
from xen.guest import FakeHost, Guest

KHZ = st.integers(1_000, 10_000_000)  # 1 MHz to 10 GHz


@given(KHZ)
def test_mul_has_its_top_bit_set_and_fits_32_bits(khz: int) -> None:
    """The precision is all there is: hz is normalised to more than 1, at most 2 GHz."""
    mul, shift = scale(khz)
    assert 1 << 31 <= mul < 1 << 32
    assert -128 <= shift <= 127


def test_known_scales() -> None:
    assert scale(2_000_000) == (1 << 31, 0)
    assert scale(1_000_000) == (1 << 31, 1)
    assert scale(4_000_000) == (1 << 31, -1)
    assert scale(3_000_000) == ((10**9 << 32) // 1_500_000_000, -1)


@given(KHZ, st.integers(0, 1 << 40), st.integers(0, 1 << 50))
def test_now_is_what_the_guest_computes_from_its_vcpu_time_info(khz: int, origin: int, passed: int) -> None:
    host = FakeHost(tsc_khz=khz, tsc=origin)
    clock = Clock(host)
    host.tsc = origin + passed
    delta = passed << clock.shift if clock.shift >= 0 else passed >> -clock.shift
    assert clock.now() == delta * clock.mul >> 32
    # And it is the time, but for the bits that 32 of precision and the right shift lose.
    true = passed * 1_000_000 // khz
    assert abs(clock.now() - true) <= 2 + true / 2**30


def test_a_tsc_that_went_back_is_time_0() -> None:
    host = FakeHost(tsc=1000)
    clock = Clock(host)
    host.tsc = 0
    assert clock.now() == 0


def test_wallclock_is_unix_time_at_system_time_0() -> None:
    """UTC = wc + now; seconds above 32 bits are in wc_sec_hi."""
    before = time.time_ns()
    guest = Guest()
    after = time.time_ns()
    guest.domain.shared.map_at(0xA)
    for layout, place, high in ((True, 0xC00, 0xC0C), (False, 0x900, 0x924)):
        guest.domain.shared.latch_width(wide=layout)
        version, seconds, nanoseconds = guest.get("<III", 0xA000 + place)
        (seconds_high,) = guest.get("<I", 0xA000 + high)
        assert version % 2 == 0
        assert nanoseconds < 10**9
        assert before <= (seconds_high << 32 | seconds) * 10**9 + nanoseconds <= after
    guest.close()
