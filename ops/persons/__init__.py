"""Persons whose data are found, shown and forgotten."""
