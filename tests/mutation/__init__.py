"""Mutation testing (`make mutate`): tests must notice small faults in the code that decides about events."""
