"""pvh.hints: annotations that use it still resolve at run time."""

from __future__ import annotations

import inspect
import typing

import pytest

from pvh import hints
from pvh.errors import PvhError
from pvh.kernel.source import BytesSource, Source
from pvh.outcome import Outcome
from pvh.plan.options import BootOptions


@pytest.mark.parametrize(
    ("thing", "name", "kind"),
    [
        (PvhError, "status", int),
        (BootOptions, "abi", str),
        (BootOptions, "timeout", float | None),
        (Outcome, "ending", str),
    ],
)
def test_hints_resolve(thing: type, name: str, kind: object) -> None:
    assert typing.get_type_hints(thing)[name] == kind


def test_a_protocol_needs_no_base_class() -> None:
    assert inspect.getmro(Source)[1] is hints.Protocol
    assert Source not in inspect.getmro(BytesSource)
