"""Xen's public interface as data: numbers, names, wire layouts. No behaviour; imports nothing of the package."""
