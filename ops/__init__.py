"""The `sluice` command and what builds and measures the project."""
