"""Guests to call the personality with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xen.guest import Guest


@pytest.fixture(params=[64, 32], ids=["64-bit", "32-bit"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest of two vCPUs, called from 64- and from 32-bit code."""
    made = Guest(vcpus=2, bits=request.param)
    yield made
    made.close()
