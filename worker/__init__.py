"""The worker: envelopes from the stream → spans → chunks → Treasure Data."""
