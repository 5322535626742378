"""Forgets persons: removes their rows from span objects and from Treasure Data. docs/internals/forgetting.md has the protocol."""
