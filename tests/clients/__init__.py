"""Tests of clients as their users get them."""
