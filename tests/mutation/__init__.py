"""Mutation testing: the tests must notice small faults in the code that decides about events. `make mutate` runs it."""
