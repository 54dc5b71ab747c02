"""Records: dataclasses whose machinery is made when it is first used.

The standard module takes 4 to 10 ms to import (for inspect) and 0.35 ms a class (for compiling source), which was 40 %
of a whole `pvh run` of a tiny kernel. A class made here takes 20 us: its constructor is compiled when it has proved to
be in demand, and what the standard `fields`, `replace`, `asdict` and `inspect.signature` look for is made when they
look.

Type checkers are told that these are the standard ones. Always slotted; no kw_only, no InitVar, no __post_init__, no
default that a slot of a base class would hide.
"""

from __future__ import annotations

from pvh.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass, field, replace

__all__ = ["dataclass", "field", "replace"]

_MISSING: Any = object()
_DEMAND = 16  # instances after which compiling a constructor pays


class _Field:
    """What a class says of one of its fields."""

    __slots__ = ("annotation", "compare", "default", "factory", "name", "repr")

    def __init__(self, default: Any, factory: Any, *, repr_: bool, compare: bool) -> None:
        self.name = self.annotation = ""
        self.default = default
        self.factory = factory
        self.repr = repr_
        self.compare = compare


class _OnDemand:
    """A class attribute that the standard library looks for, made from a standard dataclass when it does."""

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute

    def __get__(self, _instance: object, cls: Any) -> Any:
        import dataclasses
        import inspect

        standard = [(f.name, f.annotation, _standard_field(dataclasses, f)) for f in cls.__record__]
        made = dataclasses.make_dataclass(cls.__name__, standard)
        cls.__dataclass_fields__ = vars(made)["__dataclass_fields__"]
        cls.__signature__ = inspect.signature(made)
        return getattr(cls, self.attribute)


def _standard_field(dataclasses: Any, f: _Field) -> Any:
    given = {"repr": f.repr, "compare": f.compare}
    if f.default is not _MISSING:
        given["default"] = f.default
    if f.factory is not _MISSING:
        given["default_factory"] = f.factory
    return dataclasses.field(**given)


def _make(cls: type[Any], *, frozen: bool, order: bool) -> Any:
    """Make a class again, as a record: with slots, and the methods that its fields ask for."""
    own = dict(vars(cls))
    inherited = [f for base in reversed(cls.__mro__) for f in vars(base).get("__record__", ())]
    added: list[_Field] = []
    for name, annotation in cls.__annotations__.items():
        if not str(annotation).startswith("ClassVar"):
            said = own.pop(name, _MISSING)
            f = said if isinstance(said, _Field) else _Field(said, _MISSING, repr_=True, compare=True)
            f.name, f.annotation = name, annotation
            added.append(f)
    fields = (*inherited, *added)
    for absent in ("__dict__", "__weakref__"):
        own.pop(absent, None)
    own = {**_methods(frozen=frozen, order=order), **own, "__qualname__": cls.__qualname__}
    own |= {"__slots__": tuple(f.name for f in added), "__match_args__": tuple(f.name for f in fields)}
    own |= {"__record__": fields, "__compared__": tuple(f.name for f in fields if f.compare)}
    own |= {name: _OnDemand(name) for name in ("__dataclass_fields__", "__signature__")}
    made: Any = type(cls.__name__, cls.__bases__, own)
    made.__init__ = _constructor(made, fields)
    return made


def _constructor(cls: Any, fields: tuple[_Field, ...]) -> Callable[..., None]:
    """Return a constructor that needs no compiling, and has itself replaced by a compiled one when that pays."""
    setters = {f.name: getattr(cls, f.name).__set__ for f in fields}
    defaults = {f.name: f.default for f in fields if f.default is not _MISSING}
    factories = {f.name: f.factory for f in fields if f.factory is not _MISSING}
    made = 0

    def __init__(self: Any, *args: Any, **named: Any) -> None:  # noqa: N807
        nonlocal made
        made += 1
        given = dict(zip(setters, args, strict=False)) | named
        values = defaults | {name: make() for name, make in factories.items() if name not in given} | given
        if made > _DEMAND or len(given) < len(args) + len(named) or values.keys() != setters.keys():
            cls.__init__ = _compiled(cls, fields, setters)
            cls.__init__(self, *args, **named)  # wrong arguments get the TypeError that Python words
            return
        for name, setter in setters.items():
            setter(self, values[name])

    return __init__


def _compiled(cls: Any, fields: tuple[_Field, ...], setters: dict[str, Any]) -> Callable[..., None]:
    scope: dict[str, Any] = {"missing": _MISSING}
    parameters: list[str] = []
    body = ["pass"]
    for f in fields:
        scope |= {f"set_{f.name}": setters[f.name], f"default_{f.name}": f.default, f"make_{f.name}": f.factory}
        required = f.default is _MISSING and f.factory is _MISSING
        parameters.append(f.name if required else f"{f.name}=default_{f.name}")
        value = f.name if f.factory is _MISSING else f"make_{f.name}() if {f.name} is missing else {f.name}"
        body.append(f"set_{f.name}(self, {value})")
    exec(f"def __init__(self, {', '.join(parameters)}):\n " + "\n ".join(body), scope)  # noqa: S102 - our own fields
    scope["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    return scope["__init__"]  # type: ignore[no-any-return]


def _methods(*, frozen: bool, order: bool) -> dict[str, Any]:
    """Return the methods that look at the fields when they are called."""
    methods: dict[str, Any] = {"__repr__": _repr, "__eq__": _eq, "__hash__": None, "__reduce__": _reduce}
    if frozen:
        methods |= {"__hash__": _hash, "__setattr__": _setattr, "__delattr__": _delattr}
    if order:
        methods |= {name: _comparison(name) for name in ("__lt__", "__le__", "__gt__", "__ge__")}
    return methods


def _values(record: Any) -> list[Any]:
    return [getattr(record, name) for name in record.__compared__]


def _repr(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in self.__record__ if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: Any) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _comparison(name: str) -> Callable[[Any, Any], bool]:
    def compare(self: Any, other: Any) -> bool:
        return getattr(_values(self), name)(_values(other)) if type(other) is type(self) else NotImplemented

    return compare


def _hash(self: Any) -> int:
    return hash(tuple(_values(self)))


def _reduce(self: Any) -> tuple[Any, ...]:
    """Copy and pickle by the constructor: a frozen record cannot be filled afterwards."""
    return type(self), tuple(getattr(self, f.name) for f in self.__record__)


def _setattr(_self: Any, name: str, _value: Any) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


if not TYPE_CHECKING:

    def dataclass(*, frozen: bool = False, slots: bool, order: bool = False) -> Callable[[type[Any]], Any]:
        """Make a class a record; `slots=True` is asked for, as type checkers take the default for False."""
        assert slots
        return lambda cls: _make(cls, frozen=frozen, order=order)

    def field(
        *,
        default: Any = _MISSING,
        default_factory: Any = _MISSING,
        repr: bool = True,  # noqa: A002 - the standard name
        compare: bool = True,
    ) -> _Field:
        """Say more of a field, as with the standard module."""
        return _Field(default, default_factory, repr_=repr, compare=compare)

    def replace(record: Any, **changes: Any) -> Any:
        """Return a copy of a record with other values for some fields."""
        return type(record)(**{f.name: getattr(record, f.name) for f in record.__record__} | changes)
