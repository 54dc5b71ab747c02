"""Odd and malformed kernels, and what Xen makes of them. Each case cites the rules (rules.py) that it proves."""

from __future__ import annotations

from kernel import corpus_images, corpus_notes

# The small ones first, so that a mutant is noticed before 65536 notes are read.
CASES = sorted([*corpus_notes.CASES, *corpus_images.CASES], key=lambda case: len(case.data))
