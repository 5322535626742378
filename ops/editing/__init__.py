"""Dead letters and rejected events in an editor."""
