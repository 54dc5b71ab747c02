"""Conformance: does a kernel keep to the ABI where this ABI leaves things open, and which clause breaks it?"""
