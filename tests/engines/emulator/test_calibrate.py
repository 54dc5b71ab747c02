"""Private offsets are proved at start-up, or the engine refuses to start and names what it could not find."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from engines.emulator.harness import opened
from engines.flat import FLAT_STATE, flat_image
from pvh.abi import x86
from pvh.engines.emulator import calibrate, libunicorn
from pvh.engines.emulator.calibrate import Layout, descriptor_flags, find_layout, packed_attributes
from pvh.errors import EngineError, NoEngine


def test_every_field_is_found_somewhere_else() -> None:
    layout = find_layout()
    offsets = [getattr(layout, field.name) for field in fields(Layout)]
    assert len(set(offsets)) == len(offsets)


@pytest.mark.parametrize("name", ["gprs", "segments", "tr", "gdtr", "cr", "dr", "efer", "hflags", "star"])
def test_a_field_that_is_not_where_it_can_be_seen_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = calibrate._fields

    def elsewhere(run: int) -> dict[str, bytes]:
        return real(run) | {name: bytes(byte ^ 0xFF for byte in real(run)[name])}

    monkeypatch.setattr(calibrate, "_fields", elsewhere)
    with pytest.raises(EngineError, match=name) as caught:
        find_layout()
    assert caught.value.found == "0 places"


def test_a_field_that_could_be_in_two_places_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = calibrate._fields

    def ambiguous(run: int) -> dict[str, bytes]:
        return real(run) | {"efer": bytes(8)}

    monkeypatch.setattr(calibrate, "_fields", ambiguous)
    with pytest.raises(EngineError, match="efer"):
        find_layout()


def test_a_missing_library_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    libunicorn.library.cache_clear()
    monkeypatch.setattr(libunicorn, "library_path", lambda: None)
    with pytest.raises(NoEngine, match="not installed"):
        libunicorn.library()


def test_another_library_of_that_name_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    libunicorn.library.cache_clear()
    monkeypatch.setattr(libunicorn, "library_path", lambda: "libm.so.6")
    with pytest.raises(NoEngine, match="cannot be used"):
        libunicorn.library()
    libunicorn.library.cache_clear()


def test_packing_attributes_round_trips() -> None:
    for attributes in 0xC9B, 0xA9B, 0x08B, 0xCF3, 0:
        assert packed_attributes(descriptor_flags(attributes)) == attributes


def test_mode_bits_the_engine_computes_are_those_the_library_computes() -> None:
    """For segments of every kind, a load by VMRUN and Registers.set_mode() agree."""
    for code in 0xC9B, 0x89B, 0x49B:
        for stack in 0xC93, 0x893, 0xCF3:
            for base in 0, 0x1000:
                ss = replace(FLAT_STATE.ss, attributes=stack, base=base)
                state = replace(FLAT_STATE, cs=replace(FLAT_STATE.cs, attributes=code | stack & x86.AR_DPL), ss=ss)
                with opened(flat_image("nop", state)) as vm:
                    registers = vm.vcpus[0].registers
                    loaded = registers.hflags
                    registers.set_mode(registers.cpl)
                    assert registers.hflags == loaded
