"""The worker delivers envelopes from the stream to Treasure Data, in spans and chunks."""
