"""Tracking plans: from the events that arrive, and compared with them."""
