"""Benchmarks of Sluice beside simpler ways of doing the same: `make bench`."""
