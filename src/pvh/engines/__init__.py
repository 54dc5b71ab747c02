"""Engines execute guests; nothing outside this room knows which one runs."""
