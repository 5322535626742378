"""The redrive: what is set aside goes to Treasure Data once that can take it."""

from typing import Any


class Redrive:
    """Sends what is set aside."""

    def __init__(self, **_: Any) -> None: ...
