"""Measurements side by side with simpler ways of doing the same: `make bench`."""
