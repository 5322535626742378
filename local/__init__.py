"""The whole pipeline on one machine: gateway, event source, Treasure Data stand-in, and what they stand on."""
