"""The checks before a deploy."""
