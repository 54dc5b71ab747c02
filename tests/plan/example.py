"""The plan that docs/plan-example.svg shows. `python -m plan.example` in tests/ writes the picture anew."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from plan.kernels import debian
from pvh.plan.options import BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.record import Plan
from pvh.plan.svg import render_svg

PICTURE = Path(__file__).resolve().parent.parent.parent / "docs" / "plan-example.svg"


def example() -> Plan:
    """Plan Debian's cloud kernel with 512 MiB and an initrd of 28.3 MiB called initrd.img."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with open("initrd.img", "wb") as file:
                file.truncate(29_673_931)
            return plan(debian(), BootOptions(cmdline="console=hvc0 quiet", modules=(ModuleSpec("initrd.img"),)))
        finally:
            os.chdir(before)


if __name__ == "__main__":
    PICTURE.write_text(render_svg(example()), encoding="utf-8")
