"""The pvh command: one module per subcommand, no logic beyond options and rendering."""
