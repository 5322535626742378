"""The records of the stream, and replays of them."""
