"""What of a span is in the bucket: its object, the rows of its chunks, and the rejected events of which copies are kept."""

from collections.abc import Collection

from shared.errors import ObjectGoneError
from worker.bucket import Bucket
from worker.index import Index
from worker.rejected_events import KeptEvent, events
from worker.rejected_events import name_of as name_of_rejected
from worker.rows import decompress
from worker.span import ChunkKey, Span
from worker.span_object import checked_part, name_of


def has_object(bucket: Bucket, span: Span) -> bool:
    """Return whether the bucket has a span's object.

    Raises:
        BucketUnavailableError: S3 does not answer.
    """
    return bucket.get(name_of(span), (0, 1)) is not None


def payloads(bucket: Bucket, span: Span, index: Index, keys: Collection[ChunkKey]) -> dict[ChunkKey, bytes]:
    """Return the rows of planned chunks, read from S3 at once. Chunks that the object no longer has are left out.

    Raises:
        ObjectGoneError: the object is gone.
        InvalidObjectError: it holds something else than was written.
        BucketUnavailableError: S3 does not answer.
    """
    members = index.members
    kept = {key: members[key] for key in keys if key in members and members[key].length}
    if not kept:
        return {}
    begin = min(member.offset for member in kept.values())
    end = max(member.offset + member.length for member in kept.values())
    name = name_of(span)
    data = bucket.get(name, (begin, end - begin))
    if data is None:
        raise ObjectGoneError(f"{name} is gone")
    return {key: decompress(checked_part(name, data, begin, member)) for key, member in kept.items()}


def kept_events(bucket: Bucket, span: Span, key: ChunkKey) -> list[KeptEvent]:
    """Return the rejected events of a chunk that were kept.

    Raises:
        ObjectGoneError: they have been deleted, or none was kept.
        InvalidObjectError: the object holds something else.
        BucketUnavailableError: S3 does not answer.
    """
    data = bucket.get(name_of_rejected(span, key.group))
    if data is None:
        raise ObjectGoneError("the rejected events have been deleted, or none was kept")
    return list(events(decompress(data)))
