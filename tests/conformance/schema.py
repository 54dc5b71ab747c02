"""As much of JSON Schema (draft 2020-12) as docs/*.schema.json use; a word of it that is not here is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip
_KNOWN = {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "enum", "const", "properties", "required",
          "additionalProperties", "items", "anyOf"}  # fmt: skip


def errors(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> Iterator[str]:
    """Yield what of a value the schema does not allow."""
    assert set(schema) <= _KNOWN, set(schema) - _KNOWN
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    of_each = [list(errors(value, one, root, at)) for one in schema.get("anyOf", [])]
    yield from (error for of_one in of_each for error in of_one if all(of_each))
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        fits = any(isinstance(value, _TYPES[name]) and (name == "boolean") >= isinstance(value, bool) for name in names)
        if not fits:
            yield f"{at}: {value!r} is no {' or '.join(names)}"
            return
    if isinstance(value, dict):
        known = schema.get("properties", {})
        yield from (f"{at}: no {name}" for name in schema.get("required", []) if name not in value)
        for name, inner in value.items():
            if name in known:
                yield from errors(inner, known[name], root, f"{at}.{name}")
            elif schema.get("additionalProperties") is False:
                yield f"{at}: {name} is not in the schema"
            elif others := schema.get("additionalProperties"):
                yield from errors(inner, others, root, f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from errors(inner, schema["items"], root, f"{at}[{index}]")
