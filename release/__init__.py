"""Builds the functions for Lambda, and packs them for a deploy without this repository."""
