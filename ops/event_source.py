"""Checks that the stream still feeds the worker as the template says: its event source mapping, and what it is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.ledger import Ledger
from worker.record import START
from worker.shards import Position, Shards

_KNOWN_AFTER_SECONDS = 3600.0
"""A record this old must be in the ledger, unless nothing has been delivered for as long."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of the mapping, and what follows where it is another."""

    name: str
    value: Any
    otherwise: str


_SETTINGS = (
    _Setting("MaximumRetryAttempts", -1, "batches that must wait are given up"),
    _Setting("MaximumRecordAgeInSeconds", -1, "records that must wait are given up"),
    _Setting("FunctionResponseTypes", ["ReportBatchItemFailures"], "records that must wait are given up"),
    _Setting("ParallelizationFactor", 1, "the worker holds: records do not come in the shard's order"),
    _Setting("FilterCriteria", None, "the worker holds, or records never reach it"),
    _Setting("TumblingWindowInSeconds", None, "Lambda expects a state that the worker does not return"),
    _Setting("BisectBatchOnFunctionError", value=False, otherwise="harmless, but not what the template says"),
)


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
        for setting in _SETTINGS:
            is_value = mapping.get(setting.name) or None  # not set, or set to nothing
            if is_value != (setting.value or None):
                yield f"{setting.name} is {is_value}, not {setting.value}: {setting.otherwise}"


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
