"""Random requests by the million: `make fuzz`."""
