"""Runs inside (tools/nested): the vcpuop guest on the genuine KVM, its lines as they are.

As tests/smp/inside.py, which compares them; this is for the table of docs/vcpuop.md.
"""

from __future__ import annotations

import sys

from pvh.engines.kvm.engine import KvmEngine
from smp.boot import boot

said, outcome = boot("vcpuop", KvmEngine(), 9, "nopae noring3")
print(said)
sys.exit(outcome.status)
