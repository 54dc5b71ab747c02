"""A project's defaults for options: pvh.toml, or [tool.pvh] of pyproject.toml, here or in a folder above.

The environment variable PVH_CONFIG names another file, or none when it is empty. What is typed goes before.
"""

from __future__ import annotations

import os

from pvh.errors import UsageError
from pvh.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvh.cli.plain import Notes

# Options of the boot, by their long names. None writes a file: a folder that somebody else made shall not do that.
KEYS = ("abi", "clock", "cmdline", "copy", "engine", "initrd", "memory", "platform", "timeout", "vcpus")


def chosen_for(notes: Notes) -> dict[str, Any]:
    """Return what the project sets of a command's options, each by its name. Raises UsageError for what is amiss."""
    path, values = chosen()
    found: dict[str, Any] = {}
    for key, value in values.items():
        name, said = notes.options.get(f"--{key}", ("", {}))
        if name:
            found[name] = _converted(path or "", key, value, said)
    return found


def chosen() -> tuple[str | None, dict[str, Any]]:
    """Return the project's file, None without one, and what it sets, as it stands there."""
    named = os.environ.get("PVH_CONFIG")
    if named is not None:
        return (named, _read(named, is_whole=not named.endswith("pyproject.toml"))) if named else (None, {})
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was removed
        return None, {}
    while True:
        for name in ("pvh.toml", "pyproject.toml"):
            path = os.path.join(folder, name)
            if _speaks(path, name):
                return path, _read(path, is_whole=name == "pvh.toml")
        above = os.path.dirname(folder)
        if above == folder:
            return None, {}
        folder = above


def _speaks(path: str, name: str) -> bool:
    """Tell whether a file says something to us; a TOML parser costs too much to ask each."""
    if not os.path.isfile(path):
        return False
    if name == "pvh.toml":
        return True
    try:
        with open(path, "rb") as file:
            return b"[tool.pvh]" in file.read()
    except OSError:
        return False


def _read(path: str, *, is_whole: bool) -> dict[str, Any]:
    import tomllib  # most folders have no such file

    try:
        with open(path, "rb") as file:
            table: Any = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read it: {(error.strerror or str(error)).lower()}", path=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"no TOML: {error}", path=path) from None
    if not is_whole:
        table = table.get("tool", {}).get("pvh", {})
    for key, value in table.items():
        if isinstance(value, dict):
            hint = "write them at the top of pvh.toml, or below [tool.pvh] in pyproject.toml"
            raise UsageError(f"has a section [{key}]: defaults are for all commands alike", path=path, hint=hint)
        if key not in KEYS:
            raise UsageError(f"sets {key!r}, which is no option with a default", path=path,
                             hint=f"there are {', '.join(KEYS)}")  # fmt: skip
    return dict(table)


def _converted(path: str, key: str, value: Any, said: dict[str, Any]) -> Any:
    """Return an option's value as its command has it. Raises UsageError."""
    if said.get("action") == "store_true":
        if isinstance(value, bool):
            return value
        raise UsageError(f"{key} = {value!r} is neither true nor false", path=path)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"{key} = {value!r} is no value for --{key}", path=path)
    if key == "memory" and isinstance(value, int) and (value <= 0 or value % 4096):
        raise UsageError(f"memory = {value} is in bytes, and no multiple of 4096", path=path, hint='write "64M"')
    choices = said.get("choices")
    try:
        read = said.get("type", str)(str(value))
    except Exception as error:  # noqa: BLE001  whatever an option's type raises, argparse's error among it
        raise UsageError(f"{key}: {error}", path=path) from None
    if choices and read not in choices:
        raise UsageError(f"{key} = {value!r} is none of {', '.join(choices)}", path=path)
    return os.path.join(os.path.dirname(path), read) if key == "initrd" else read
