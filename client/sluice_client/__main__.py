"""`python -m sluice_client` is `sluice-send`."""

from sluice_client.command import script

script()
