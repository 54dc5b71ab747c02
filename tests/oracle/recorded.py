"""The committed logs of real Xen (tools/oracle), each with the plan we make of the same kernel and settings."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

from tools.oracle import job

from pvh.kernel.read import read_kernel
from pvh.plan.options import MIB, BootOptions, ModuleSpec
from pvh.plan.planner import plan
from pvh.plan.record import Plan

ROOT = Path(__file__).resolve().parent.parent.parent
LOGS = Path(__file__).parent / "logs"
NAMES = sorted(path.stem for path in LOGS.glob("*.log"))
ENTRY = [name for name in NAMES if name.startswith("entry")]
OTHERS = [name for name in NAMES if not name.startswith("entry")]


@cache
def log_of(name: str) -> job.Log:
    """Return a log."""
    return job.read((LOGS / f"{name}.log").read_text(encoding="utf-8"))


def job_of(name: str) -> job.Job:
    """Return what ran, with absolute paths."""
    ran = job.parse(log_of(name).facts["guest"])
    return replace(ran, kernel=ROOT / ran.kernel, ramdisk=ROOT / ran.ramdisk if ran.ramdisk else None)


@cache
def plan_of(name: str) -> Plan:
    """Return our plan for the same kernel, memory, processors, command line and module."""
    ran = job_of(name)
    modules = (ModuleSpec(os.fspath(ran.ramdisk)),) if ran.ramdisk else ()
    options = BootOptions(memory=ran.memory * MIB, vcpus=ran.vcpus, cmdline=ran.cmdline, modules=modules, timeout=60)
    return plan(read_kernel(os.fspath(ran.kernel)), options)
