"""Guards: steps of the delivery protocol that fault injection can switch off one by one.

Classes with a guard take the set of guards to leave out as a constructor argument. In production this set is empty. Each value
says what the guard ensures; `make chaos-selfcheck` and `make chaos-exhaustive` show what breaks without it.
"""

from collections.abc import Set as AbstractSet
from enum import Enum


class Guard(Enum):
    """One step of the protocol."""

    CONDITIONAL_PLAN = "only one span can follow the last one of a chain"
    FENCE = "an invocation that takes up an open span writes the span's version first"
    IF_VERSION = "an invocation writes a span only if no other has written it since it was read"
    OBJECT_FIRST = "the object is in S3 before the ledger says that a chunk is set aside"
    OWN_DOUBT = "only the invocation that opened a doubt may clear it"
    DOUBTED_REFUSAL = "a chunk that is refused after a doubt is in doubt, not a dead letter"
    FENCED_IN_DOUBT = "a set-aside chunk that is being sent is in doubt"
    DIGEST_IN_NAME = "the digest of an object's bytes is part of its name"
    FINAL_DELETE = "an object is deleted only when every row in it is in a final state"
    WHOLE_SPAN = "a span with unreadable records is held, not settled without them"
    CONTIGUOUS = "a batch is held if the shard has more records between its first and last"
    SEARCHED = "an envelope that may be on the stream without a claim is not sent until a search has shown that it is not there"
    CLOCK_BEFORE_SEND = "the time is checked immediately before each send"


Without = AbstractSet[Guard]
"""The guards to leave out."""

NONE: Without = frozenset()
