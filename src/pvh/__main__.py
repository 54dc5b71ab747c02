"""`python -m pvh`."""

import sys

from pvh.cli import main

sys.exit(main())
