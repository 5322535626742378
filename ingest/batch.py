"""Events that came together, and what their request says of them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared import rows


@dataclass(frozen=True, slots=True)
class Batch:
    """What a dialect makes of a request.

    Attributes:
        events: of JSON's types.
        table: where those go that name no table.
        single_table: all go to `table`, and an event's member of that name is a column.
        columns: are added to each row whose event does not bring them.
        sent_at: when the request was sent, by the sender's clock; None where it does not say.
        earliest: UNIX seconds before which no event counts as having happened.
        id: under which the sender may send the same events again; empty where it never does.
    """

    events: Sequence[Any]
    table: object = None
    single_table: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)
    sent_at: object = None
    earliest: int = rows.EARLIEST_TIME
    id: str = ""
