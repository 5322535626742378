"""The handlers measured side by side with simpler ones: `make bench`."""
