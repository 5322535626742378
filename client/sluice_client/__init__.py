"""Delivers events from Python programs to Sluice, each exactly once."""

from sluice_client.client import Client, Statistics
from sluice_client.errors import ClosedError, InvalidEventError, SluiceError, SpoolError, SpoolFullError
from sluice_client.log_handler import SluiceHandler
from sluice_client.sender import Rejection
from sluice_client.version import VERSION

__version__ = VERSION

__all__ = [
    "Client",
    "ClosedError",
    "InvalidEventError",
    "Rejection",
    "SluiceError",
    "SluiceHandler",
    "SpoolError",
    "SpoolFullError",
    "Statistics",
    "__version__",
]
