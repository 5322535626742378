"""The page of `sluice console`."""
