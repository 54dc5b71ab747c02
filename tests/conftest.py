"""Fixtures of every room: real images that tools/obtain.py put into .cache/specimens."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["pytester"]  # for the tests of our own plugin

ROOT = Path(__file__).resolve().parent.parent
SPECIMENS = ROOT / ".cache" / "specimens"

# Two cores, shared with other workers: a slow example is no defect. PVH_FUZZ multiplies the examples for longer runs.
settings.register_profile("pvh", deadline=None, max_examples=100 * int(os.environ.get("PVH_FUZZ", "1")))
settings.load_profile("pvh")


@pytest.fixture(scope="session", autouse=True)
def boot_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the tests, and what they start, a boot cache of their own."""
    os.environ["PVH_CACHE"] = str(tmp_path_factory.mktemp("cache") / "pvh")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def specimen() -> Callable[[str], Path]:
    """Return a function from a specimen's name to its path.

    An absent one skips the test; where PVH_SPECIMENS=required (make test, after tools/obtain.py) it fails it.
    """

    def find(name: str) -> Path:
        path = SPECIMENS / name
        if not path.exists():
            say = pytest.fail if os.environ.get("PVH_SPECIMENS") == "required" else pytest.skip
            say(f"no specimen {name}: run tools/obtain.py")
        return path

    return find
