"""From a Kernel and BootOptions to a Plan: every byte range placed, nothing touched."""
