"""The exceptions that callers see."""


class SluiceError(Exception):
    """The base class of this package's exceptions."""


class InvalidEventError(SluiceError, ValueError):
    """The event was not stored, because it can never be accepted: it exceeds Sluice's limits, or cannot be written as JSON."""


class SpoolError(SluiceError):
    """The event was not stored: the spool cannot be written, for example because the disk is full, or no thread can be started."""


class SpoolFullError(SpoolError):
    """The event was not stored: the spool has no room for it."""


class ClosedError(SluiceError):
    """The event was not stored: the client is closed."""
