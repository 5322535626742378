"""The ingest function: turns HTTP requests into envelopes on the stream."""
