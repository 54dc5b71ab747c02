"""pvh.record makes classes that behave as the standard library's dataclasses do, and that its functions know."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from typing import Any, ClassVar

import pytest

from pvh import record


@record.dataclass(frozen=True, slots=True)
class Mine:
    """A record."""

    LIMIT: ClassVar[int] = 9
    first: int
    second: str = "two"
    third: list[int] = record.field(default_factory=list[int])
    fourth: bytes = record.field(default=b"", repr=False, compare=False)

    @property
    def doubled(self) -> int:
        """Twice the first."""
        return 2 * self.first


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """The same, by the standard module."""

    LIMIT: ClassVar[int] = 9
    first: int
    second: str = "two"
    third: list[int] = dataclasses.field(default_factory=list[int])
    fourth: bytes = dataclasses.field(default=b"", repr=False, compare=False)


@record.dataclass(slots=True)
class Open:
    """A record that may change."""

    value: int = 0


@record.dataclass(slots=True)
class Wider(Open):
    """A record that inherits fields."""

    more: int = 1


@record.dataclass(frozen=True, slots=True, order=True)
class Ordered:
    """A record that sorts."""

    key: int
    rest: str = record.field(default="", compare=False)


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, "b"), {"third": [3]}),
    ((), {"first": 4, "fourth": b"4"}),
    ((), {}),
    ((1, "b", [], b"", 5), {}),
    ((1,), {"first": 2}),
    ((1,), {"unknown": 2}),
    ((), {"second": "b", "unknown": 2}),
]


def outcome(cls: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    try:
        made = cls(*args, **named)
    except TypeError as error:
        return str(error).replace("Mine", "Standard"), ()
    return "", (made.first, made.second, made.third, made.fourth, repr(made).replace("Mine", "Standard"))


@pytest.mark.parametrize("args_named", CALLS, ids=repr)
@pytest.mark.parametrize("times", [1, 40])
def test_construction_is_the_standard_one_before_and_after_compiling(args_named: Any, times: int) -> None:
    for _ in range(times):
        assert outcome(Mine, *args_named) == outcome(Standard, *args_named)


def test_a_default_factory_makes_anew_each_time() -> None:
    for _ in range(40):
        assert Mine(1).third is not Mine(1).third


def test_equality_and_hash_are_by_compared_fields_and_class() -> None:
    assert Mine(1, fourth=b"x") == Mine(1, fourth=b"y") != Mine(2)
    other: Any = Standard(1)
    assert Mine(1) != other
    assert hash(Ordered(1, "a")) == hash(Ordered(1, "b"))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Open())


def test_order_is_by_compared_fields() -> None:
    assert [made.rest for made in sorted([Ordered(2, "b"), Ordered(1, "a")])] == ["a", "b"]
    assert Ordered(1, "b") <= Ordered(1, "a") < Ordered(2) > Ordered(1) >= Ordered(1)
    assert not Ordered(1) < Ordered(1, "a")
    with pytest.raises(TypeError):
        _ = Ordered(1) < Standard(1)  # type: ignore[operator] # pyright: ignore[reportOperatorIssue]


def test_frozen_and_slotted() -> None:
    made: Any = Mine(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'first'"):
        made.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'first'"):
        del made.first
    assert not hasattr(made, "__dict__")
    loose: Any = Open()
    loose.value = 5
    assert (loose.value, Mine(3).doubled, Mine.LIMIT) == (5, 6, 9)
    with pytest.raises(AttributeError):
        loose.other = 1


def test_inherited_fields_come_first() -> None:
    assert (Wider(1, 2).value, Wider(1, 2).more, repr(Wider())) == (1, 2, "Wider(value=0, more=1)")


def test_the_standard_functions_know_it() -> None:
    made = Mine(1, "b", [3], b"4")
    assert [field.name for field in dataclasses.fields(Mine)] == [field.name for field in dataclasses.fields(Standard)]
    assert dataclasses.asdict(made) == dataclasses.asdict(Standard(1, "b", [3], b"4"))
    assert dataclasses.replace(made, first=2) == record.replace(made, first=2) == Mine(2, "b", [3], b"4")
    assert dataclasses.is_dataclass(Mine)
    assert str(inspect.signature(Mine)) == str(inspect.signature(Standard))
    assert copy.deepcopy(made) == copy.copy(made) == made
    assert pickle.loads(pickle.dumps(Open(7))) == Open(7)


def test_a_record_in_a_function_is_named_as_python_names_it() -> None:
    @record.dataclass(slots=True)
    class Inner:
        value: int

    assert repr(Inner(1)) == "test_a_record_in_a_function_is_named_as_python_names_it.<locals>.Inner(value=1)"


def test_patterns_match_by_position() -> None:
    match Mine(1, "b"):
        case Mine(first, second):
            assert (first, second) == (1, "b")


def test_nothing_of_the_standard_module_is_imported() -> None:
    code = (
        "import sys\nfrom pvh.record import dataclass, replace\n"
        "@dataclass(frozen=True, slots=True)\nclass A:\n    a: int\n"
        "for n in range(40): assert replace(A(n), a=1) == A(1)\n"
        "print([name for name in ('dataclasses', 'inspect') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
