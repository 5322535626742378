"""Benchmarks that compare Sluice with simpler ways to do the same: `make bench`."""
