"""First-read monitor: which instruction of a guest first uses what it may not rely on (docs/monitor.md)."""
