"""`python -m pvh`."""

import sys

from pvh.cli import program

sys.exit(program())
