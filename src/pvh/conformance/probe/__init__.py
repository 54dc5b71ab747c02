"""The probe: what a VMM hands to a PVH kernel, told by a kernel that records it.

`kernel`, `bzimage`: its files. `capture`: what it printed. `facts`: what that means. `verdicts`: what the ABI
says to it. Its source is tests/guests/probe.S; tests/guests/build.py builds it.
"""
