"""What is asked of a boot, checked: kinds, words and numbers that no guest can have."""

from __future__ import annotations

from pvh import given
from pvh.abi.x86 import PAGE_SIZE
from pvh.errors import UsageError
from pvh.hints import Any
from pvh.plan import layout
from pvh.plan.memory_map import ram_spans
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.units import mebibytes_up, size_text
from pvh.plan.variation import Variation

_PATH = (str, type(None)), "a path as text, or None"
_FLAG = bool, "True or False"
_KINDS: dict[str, tuple[Any, str]] = {
    "memory": (int, "bytes, such as 64 << 20"),
    "vcpus": (int, f"1 to {layout.MAX_VCPUS}"),
    "cmdline": (str, "text"),
    "modules": (tuple, "a tuple of ModuleSpec"),
    "privileged": _FLAG,
    "initdomain": _FLAG,
    "copy": _FLAG,
    "patch": _FLAG,
    "timeout": ((int, float, type(None)), "seconds, or None"),
    "trace": _PATH,
    "core": _PATH,
    "variation": (Variation, "a Variation"),
}
_WORDS = {
    "abi": ("v1", "v0", "draft-c"),
    "platform": ("xen", "bare"),
    "engine": ("auto", "kvm", "emulator"),
    "clock": ("host", "instructions"),
}


def check(options: BootOptions) -> None:
    """Raise UsageError for what cannot be had."""
    given.kind("options", options, BootOptions, "pvh.BootOptions(...)")
    for name, (kinds, wanted) in _KINDS.items():
        given.kind(name, getattr(options, name), kinds, wanted)
    for name, words in _WORDS.items():
        word = getattr(options, name)
        if word not in words:
            raise UsageError(f"no such {name}", found=repr(word), wanted=", ".join(words))
    for spec in options.modules:
        given.kind("a module", spec, ModuleSpec, "pvh.ModuleSpec(path)")
        given.kind("a module's path", spec.path, str, "a path as text")
        given.kind("a module's cmdline", spec.cmdline, (str, type(None)), "text, or None")
    if options.timeout is not None and not 0 <= options.timeout <= given.FOR_EVER:
        raise UsageError("timeout is no time to run", found=f"{options.timeout}", wanted="0 to 1e9 seconds, or None")
    _memory(options.memory)
    given.number("vcpus", options.vcpus, 1, layout.MAX_VCPUS)


def _memory(memory: int) -> None:
    if memory <= 0 or memory % PAGE_SIZE:
        raise UsageError(
            "guest memory must be a positive multiple of 4096 bytes",
            found=f"{memory} bytes",
            hint=f"--memory {max(mebibytes_up(memory), 1)}M",
        )
    end = ram_spans(memory)[-1][1]
    if end > layout.PHYSICAL_END:
        raise UsageError(
            f"guest memory reaches beyond {layout.PHYSICAL_END.bit_length() - 1} bits of physical address",
            found=f"{size_text(memory)}, up to {end:#x}",
            wanted=f"up to {layout.PHYSICAL_END:#x}",
        )
