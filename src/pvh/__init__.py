"""Build, boot, explain and check kernels that use Xen's HVM direct boot ABI (PVH).

The pipeline, each arrow a function and each box a frozen record:

    file ──read_kernel──▶ Kernel ──plan──▶ Plan ──build──▶ Image ──boot──▶ Outcome

Everything is imported on first use.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as pvh.hints has it, which importing the package should not import
if TYPE_CHECKING:
    from typing import Any

    from pvh.kernel.record import Kernel
    from pvh.plan.options import BootOptions, ModuleSpec
    from pvh.plan.record import Plan

__version__ = "0.1.0"

_HOMES = {
    "BootOptions": "pvh.plan.options",
    "Kernel": "pvh.kernel.record",
    "ModuleSpec": "pvh.plan.options",
    "Plan": "pvh.plan.record",
}

__all__ = ["BootOptions", "Kernel", "ModuleSpec", "Plan", "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pvh' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
