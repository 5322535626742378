"""`make mutate`: tests must notice small faults in the rules that decide about events, and the absence of each defence of the protocol."""
