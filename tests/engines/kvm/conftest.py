"""The KVM of this host, or a skip that says why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pvh.engines.kvm.device import open_device
from pvh.engines.kvm.engine import KvmEngine
from pvh.engines.kvm.probe import Probe, run_probe
from pvh.errors import NoEngine


@pytest.fixture(scope="session")
def kvm_device() -> Iterator[int]:
    try:
        fd = open_device()
    except NoEngine as error:
        pytest.skip(f"no KVM here: {error}")
    yield fd
    os.close(fd)


@pytest.fixture(scope="session")
def kvm_probe(kvm_device: int) -> Probe:
    return run_probe(kvm_device)


@pytest.fixture(scope="session")
def kvm_engine(kvm_device: int, kvm_probe: Probe) -> KvmEngine:
    return KvmEngine(os.dup(kvm_device), kvm_probe)
