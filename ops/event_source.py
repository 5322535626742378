"""Checks that the stream still feeds the worker as the template says: its event source mapping, and what it is."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from worker.ledger import Ledger
from worker.record import START
from worker.shards import Position, Shards

_KNOWN_AFTER_SECONDS = 3600.0
"""A record this old must be in the ledger, unless nothing has been delivered for as long."""


_SETTINGS: tuple[tuple[str, Any, str], ...] = (
    ("MaximumRetryAttempts", -1, "batches that must wait are given up"),
    ("MaximumRecordAgeInSeconds", -1, "records that must wait are given up"),
    ("FunctionResponseTypes", ["ReportBatchItemFailures"], "records that must wait are given up"),
    ("ParallelizationFactor", 1, "the worker holds: records do not come in the shard's order"),
    ("FilterCriteria", None, "the worker holds, or records never reach it"),
    ("TumblingWindowInSeconds", None, "Lambda expects a state that the worker does not return"),
    ("BisectBatchOnFunctionError", False, "harmless, but not what the template says"),
)
"""Settings of the mapping with their values, and what follows where one has another."""


def mapping_faults(found: Iterable[Mapping[str, Any]], function: str) -> Iterator[str]:
    """Yield what is wrong with the worker's event source mappings.

    Args:
        found: as ListEventSourceMappings describes them, those of other functions too.
        function: the worker's name.
    """
    ours = {one["UUID"]: one for one in found if f":function:{function}:" in f"{one['FunctionArn']}:"}
    if len(ours) != 1:
        yield f"{len(ours)} event source mappings instead of one"
    for mapping in ours.values():
        if mapping["State"] not in ("Enabled", "Updating"):
            yield (
                f"it is {mapping['State']}: nothing is delivered until "
                f"`aws lambda update-event-source-mapping --uuid {mapping['UUID']} --enabled`"
            )
        for name, value, otherwise in _SETTINGS:
            is_value = mapping.get(name) or None  # not set, or set to nothing
            if is_value != (value or None):
                yield f"{name} is {is_value}, not {value}: {otherwise}"


def unknown_shards(shards: Shards, ledger: Ledger, now: float) -> Iterator[str]:
    """Yield the shards with old records of which the ledger knows none: the stream is not the one that it knew.

    Args:
        shards: the stream.
        ledger: the ledger.
        now: UNIX seconds.
    """
    for shard in shards.all():
        page = shards.cursor(shard.shard_id, Position()).read()
        arrivals = [
            record["ApproximateArrivalTimestamp"].timestamp()
            for record in (() if page is None else page.records)
        ]
        if not arrivals or now - min(arrivals) < _KNOWN_AFTER_SECONDS:
            continue
        if ledger.end(shards.chain(shard.shard_id)) == START:
            yield shard.shard_id
