"""What must be kept of running objects for a guest to go on from a moment, as plain values.

A class names the fields that are its state in KEPT; every other field is wiring, which stays as it was built. A class
whose state takes more than that has capture() and apply(state) of its own, and keep() and put_back() for the rest.
Plain are None, bool, int, str, bytes, records, and containers of plain values. As text (dumps, loads) they are JSON in
which everything but None, bool, int, str and lists is tagged: reading makes these kinds of values and nothing else.
"""

from __future__ import annotations

from collections import deque

from pvh.hints import TYPE_CHECKING, Any
from pvh.record import replace

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTAINERS = (list, tuple, set, frozenset, deque)


def capture(thing: Any) -> Any:
    """Return what is kept of a thing: plain values that share nothing with it that can change."""
    kind = type(thing)
    if hasattr(kind, "capture"):
        return thing.capture()
    return keep(thing) if hasattr(kind, "KEPT") else _copied(thing, kind)


def _copied(thing: Any, kind: Any) -> Any:
    """Return a plain value, or what is one under another name, without what could change."""
    if isinstance(thing, dict):
        return {key: capture(value) for key, value in thing.items()}
    if isinstance(thing, _CONTAINERS):
        return kind(map(capture, thing))
    if isinstance(thing, (memoryview, bytearray)):
        return bytes(thing)
    if hasattr(kind, "__record__") and kind.__hash__ is None:
        return replace(thing)  # one that can be changed
    return thing


def keep(thing: Any) -> dict[str, Any]:
    """Return the fields that KEPT names."""
    return {name: capture(getattr(thing, name)) for name in type(thing).KEPT}


def apply(thing: Any, state: Any) -> Any:
    """Give a thing the state that capture() returned; return it, or what stands for it now if it is a plain value."""
    kind = type(thing)
    if hasattr(kind, "apply"):
        thing.apply(state)
        return thing
    if hasattr(kind, "KEPT"):
        put_back(thing, state)
        return thing
    if isinstance(thing, memoryview):
        thing[:] = state
        return thing
    if isinstance(thing, bytearray):
        return bytearray(state)
    if isinstance(thing, list) and thing and (hasattr(type(thing[0]), "KEPT") or hasattr(type(thing[0]), "apply")):
        return [apply(one, of_it) for one, of_it in zip(thing, state, strict=True)]
    return capture(state)


def put_back(thing: Any, state: dict[str, Any]) -> None:
    """Set the fields that KEPT names."""
    for name in type(thing).KEPT:
        setattr(thing, name, apply(getattr(thing, name), state[name]))


def dumps(state: Any) -> str:
    """Return plain values as text."""
    import json  # most runs keep nothing

    return json.dumps(_tagged(state), separators=(",", ":"))


def loads(text: str | bytes, records: tuple[type[Any], ...]) -> Any:
    """Return what dumps() wrote; of records only these. Raises ValueError for anything else."""
    import json

    by_name = {record.__name__: record for record in records}
    try:
        return _plain(json.loads(text), by_name)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"no state: {error!r}") from None


def _tagged(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, bytes):
        import zlib
        from base64 import b64encode

        return {"bytes": b64encode(zlib.compress(value, 1)).decode()}
    if isinstance(value, list):
        return [_tagged(one) for one in value]
    if isinstance(value, dict):
        return {"dict": [[_tagged(key), _tagged(one)] for key, one in value.items()]}
    if isinstance(value, (tuple, set, frozenset, deque)):
        return {type(value).__name__: [_tagged(one) for one in value]}
    fields = [_tagged(getattr(value, field.name)) for field in type(value).__record__]
    return {"record": [type(value).__name__, *fields]}


_MOST_BYTES = 1 << 20  # that one value may unpack to
_MADE: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}


def _plain(value: Any, records: dict[str, type[Any]]) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, list):
        return [_plain(one, records) for one in value]
    if not isinstance(value, dict):
        raise TypeError(f"{value!r}")
    ((tag, inner),) = value.items()
    if tag == "bytes":
        return _unpacked(inner)
    if tag == "dict":
        return {_plain(key, records): _plain(one, records) for key, one in inner}
    items = [_plain(one, records) for one in inner]
    return records[items[0]](*items[1:]) if tag == "record" else _MADE[tag](items)


def _unpacked(text: str) -> bytes:
    import zlib
    from base64 import b64decode

    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(b64decode(text, validate=True), _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpack.eof:
        raise ValueError("more bytes than there may be")
    return data
