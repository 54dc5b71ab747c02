"""What sits behind ports and rings."""
