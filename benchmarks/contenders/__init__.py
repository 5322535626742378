"""Handlers that are measured side by side. Each runs in its own process, with this folder on sys.path."""
