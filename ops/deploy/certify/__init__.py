"""The test of a deployed stage."""
