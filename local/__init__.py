"""Runs the whole pipeline on one machine, with local substitutes for AWS, Redis and Treasure Data."""
