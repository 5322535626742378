"""What the functions and the gateway log."""
