"""The scaler: gives the stream the mode and the shards that its settings and its traffic ask for."""
