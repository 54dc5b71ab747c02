"""A guest of a store."""

from __future__ import annotations

import pytest

from xenstore.xsclient import Client


@pytest.fixture
def client() -> Client:
    return Client()
