"""The ingest function: an HTTP request becomes envelopes on the stream."""
