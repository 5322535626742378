"""Guards: steps of the delivery protocol that fault injection switches off one by one.

Parts with a guard take the set of guards to leave out as a constructor argument; in production it is empty. Each value
says what the guard ensures. `make chaos-selfcheck` shows what breaks without it.
"""

from collections.abc import Set as AbstractSet
from enum import Enum


class Guard(Enum):
    """One step."""

    CONDITIONAL_PLAN = "only one span can follow the last one of a chain"
    FENCE = "an invocation that takes up an open span writes its version first"
    IF_VERSION = "a span is written only if nobody has written it since it was read"
    OBJECT_FIRST = "the object is in S3 before the ledger says that a chunk is set aside"
    OWN_DOUBT = "a doubt is cleared only by the invocation that opened it"
    DOUBTED_REFUSAL = "a chunk that is rejected after a doubt is in doubt, not a dead letter"
    FENCED_IN_DOUBT = "a set-aside chunk that is being sent is in doubt"
    DIGEST_IN_NAME = "the digest of an object's bytes is part of its name"
    FINAL_DELETE = "an object is deleted only when every row in it is in a final state"
    WHOLE_SPAN = "a span of which records cannot be read is held, not settled without them"
    CONTIGUOUS = "a batch that lacks records which the shard has between its own is held"
    SEARCHED = (
        "an envelope that may be on the stream without a claim is not sent before it has been searched for"
    )
    CLOCK_BEFORE_SEND = "the time is checked immediately before each send"


Without = AbstractSet[Guard]
"""The guards to leave out."""

NONE: Without = frozenset()
