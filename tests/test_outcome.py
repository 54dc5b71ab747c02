"""What an outcome says to a person."""

from __future__ import annotations

from pvh.outcome import Outcome


def outcome(patched: tuple[int, ...] = (), unpatched: tuple[int, ...] = ()) -> Outcome:
    return Outcome("poweroff", 0, "x", "kvm", patched=patched, unpatched=unpatched)


def test_a_guest_left_as_it_is_needs_no_word() -> None:
    assert outcome().hypercalls == ()


def test_what_was_replaced_is_counted_and_the_first_few_named() -> None:
    (clause,) = outcome(patched=(0x1000, 0x2003)).hypercalls
    assert (
        clause
        == "VMCALL or VMMCALL replaced in the guest's code, for this KVM does not pass them on: 2, at 0x1000, 0x2003"
    )
    (clause,) = outcome(patched=tuple(range(13))).hypercalls
    assert clause.endswith(": 13, at 0x0, 0x1, 0x2, ...")


def test_what_may_not_be_replaced_is_told_with_the_option_that_forbids_it() -> None:
    (clause,) = outcome(unpatched=(0x1000,)).hypercalls
    assert "--no-patch" in clause
    assert clause.endswith(": 1, at 0x1000")
