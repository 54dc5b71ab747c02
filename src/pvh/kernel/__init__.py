"""From a file to a Kernel record: container, ELF, notes, verdict."""
