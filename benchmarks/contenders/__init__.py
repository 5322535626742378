"""Handlers that are measured side by side. They run in sandboxes of their own, where this folder is on the path."""
