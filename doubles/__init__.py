"""Doubles of AWS and Treasure Data, for the local stack, fault injection, tests and benchmarks."""
