"""`python -m pvh.demo`: write the demo initramfs to standard output."""

import sys

from pvh.demo import demo_initramfs

sys.stdout.buffer.write(demo_initramfs())
