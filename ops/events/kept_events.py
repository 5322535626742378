"""Rejected events of which copies are kept."""

from shared.errors import ObjectGoneError
from worker.bucket import Bucket
from worker.rejected_events import KeptEvent, events, name_of
from worker.rows import decompress
from worker.span import ChunkKey, Span


def kept_events(bucket: Bucket, span: Span, key: ChunkKey) -> list[KeptEvent]:
    """Return the events of a chunk that were kept.

    Raises:
        ObjectGoneError: they have been deleted, or none was kept.
        InvalidObjectError: the object holds something else.
        BucketUnavailableError: S3 does not answer.
    """
    data = bucket.get(name_of(span, key.group))
    if data is None:
        raise ObjectGoneError("the rejected events have been deleted, or none was kept")
    return list(events(decompress(data)))
