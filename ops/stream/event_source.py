"""Checks that the stream still feeds the worker as the template says: the mapping's settings, and that it is the same stream."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ops.stream.readable_shards import Position, ReadableShards
from worker.ledger import Ledger

_KNOWN_AFTER_SECONDS = 3600.0
"""A record this old is in the ledger, unless the worker has not run for as long."""

_SETTINGS: tuple[tuple[str, Any, str], ...] = (
    ("MaximumRetryAttempts", -1, "Lambda skips batches that have to wait"),
    ("MaximumRecordAgeInSeconds", -1, "Lambda skips records that have to wait"),
    ("FunctionResponseTypes", ["ReportBatchItemFailures"], "Lambda skips records that have to wait"),
    ("ParallelizationFactor", 1, "records are appended in gaps, which is slow"),
    ("FilterCriteria", None, "records never reach the worker: replay them"),
    ("TumblingWindowInSeconds", None, "Lambda expects a state that the worker does not return"),
    ("BisectBatchOnFunctionError", False, "harmless, but not what the template says"),
)
"""Settings of the mapping with their values, and the consequence of any other value."""


def mapping_faults(found: Iterable[Mapping[str, Any]], function: str) -> Iterator[str]:
    """Yield what is wrong with the worker's event source mappings, as ListEventSourceMappings describes them, perhaps with those of others."""
    ours = {one["UUID"]: one for one in found if f":function:{function}:" in f"{one['FunctionArn']}:"}
    if len(ours) != 1:
        yield f"{len(ours)} event source mappings instead of one"
    for mapping in ours.values():
        if mapping["State"] not in ("Enabled", "Updating"):
            yield (
                f"it is {mapping['State']}, so nothing is delivered: run "
                f"`aws lambda update-event-source-mapping --uuid {mapping['UUID']} --enabled`"
            )
        for name, value, otherwise in _SETTINGS:
            found_value = mapping.get(name) or None  # unset and empty are the same
            if found_value != (value or None):
                yield f"{name} is {found_value}, not {value}: {otherwise}"


def unknown_shards(shards: ReadableShards, ledger: Ledger, now: float) -> Iterator[str]:
    """Yield the shards that have old records but no span in the ledger: the worker is not running, or the stream was recreated."""
    for shard in shards.all():
        page = shards.cursor(shard.shard_id, Position()).read()
        arrivals = [
            record["ApproximateArrivalTimestamp"].timestamp()
            for record in (() if page is None else page.records)
        ]
        if not arrivals or now - min(arrivals) < _KNOWN_AFTER_SECONDS:
            continue
        if ledger.end(shard.chain) is None:
            yield shard.shard_id
