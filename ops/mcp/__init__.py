"""The read-only commands as tools of a Model Context Protocol server."""
