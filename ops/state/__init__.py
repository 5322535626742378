"""The state of a stack, and what it means."""
