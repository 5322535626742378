"""Dead rows and rejected events in an editor."""
