"""Treasure Data's API. Nothing else in the worker knows its requests, or which of its responses to believe."""
