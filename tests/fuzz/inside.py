"""Runs inside (tools/nested): a campaign of random vcpu_op calls on the genuine KVM; its arguments are the campaign's.

The KVM engine finds hypercalls in code with capstone, which the machine inside does not have: it comes as an archive.
"""

from __future__ import annotations

import sys
import tarfile

from fuzz.run_vcpu_fuzz import main

if __name__ == "__main__":
    with tarfile.open("/work/capstone.tar") as archive:
        archive.extractall("/tmp/packages")  # our own archive; Debian 12's Python has no filters yet
    sys.path.append("/tmp/packages")
    sys.exit(main(["--engine", "kvm", *sys.argv[1:]]))
