"""The whole pipeline under faults: real handlers over in-memory doubles, in simulated time, from a seed."""
