"""The handlers to compare. Each runs in its own process, with this folder on sys.path."""
