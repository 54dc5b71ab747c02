"""Runs inside (tools/nested): a campaign on the genuine KVM; the first argument names it, the others are its own.

The KVM engine finds hypercalls in code with capstone, which the machine inside does not have: it comes as an archive.
"""

from __future__ import annotations

import sys
import tarfile
from importlib import import_module

if __name__ == "__main__":
    with tarfile.open("/work/capstone.tar") as archive:
        archive.extractall("/tmp/packages")  # our own archive; Debian 12's Python has no filters yet
    sys.path.append("/tmp/packages")
    campaign = import_module(f"fuzz.{sys.argv[1]}")
    sys.exit(campaign.main(["--engine", "kvm", *sys.argv[2:]]))
