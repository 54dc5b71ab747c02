"""The GDB remote serial protocol: a debugger at a guest's vCPUs (GDB's manual, appendix E)."""
