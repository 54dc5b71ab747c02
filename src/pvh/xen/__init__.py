"""The personality: what a PVH guest finds when it looks for Xen. Knows no engine."""
