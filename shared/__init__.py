"""The contract between the ingest and the worker: names, rows, envelopes, write keys, accounts and settings."""
