"""Fault injection: runs the real handlers against in-memory services in simulated time, reproducibly from a seed."""
