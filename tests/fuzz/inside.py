"""Runs inside (tools/nested): a campaign on the genuine KVM; the first argument names it, the others are its own."""

from __future__ import annotations

import sys
from importlib import import_module

if __name__ == "__main__":
    campaign = import_module(f"fuzz.{sys.argv[1]}")
    sys.exit(campaign.main(["--engine", "kvm", *sys.argv[2:]]))
