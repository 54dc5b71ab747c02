"""What happened in a run, and when: to look at in a browser, or in Perfetto."""
