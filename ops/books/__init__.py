"""What was received, and what became of it."""
