"""The exceptions that callers see."""


class SluiceError(Exception):
    """The base class of this package's exceptions."""


class InvalidEventError(SluiceError, ValueError):
    """The event can never be accepted, so it was not stored: bad table name, too large, or not representable as JSON."""


class SpoolError(SluiceError):
    """The event was not stored: the spool cannot be written, for example because the disk is full."""


class SpoolFullError(SpoolError):
    """The event was not stored: the spool has no room for it."""


class ClosedError(SluiceError):
    """The event was not stored: the client is closed."""
