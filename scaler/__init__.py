"""The scaler: keeps the stream as large as its traffic needs."""
