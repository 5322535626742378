"""Determines what happened to every event, and checks the promises against Treasure Data and S3."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.pipeline import Pipeline
from chaos.td_faults import is_bad
from chaos.trouble import Kind
from worker.states import State

# Reasons for which rows may end dead, each with the trouble that may cause it.
_CAUSES: dict[str, tuple[Kind, ...]] = {
    "http_422": (Kind.TD_REJECTS_TABLE, Kind.TD_BAD_ROWS),
    "row_too_large": (Kind.TD_TOO_LARGE,),
    "may_not_create": (Kind.TD_FORBIDDEN_DATABASE, Kind.TD_UNAUTHORIZED),
    "no_such_database": (Kind.REMAP,),
    "disabled_account": (Kind.DISABLE,),
    "revoked_key": (Kind.DISABLE,),
    "object_gone": (Kind.S3_GONE,),
    "index_gone": (Kind.S3_GONE,),
}
_OUT_OF_ORDER = {
    *(Kind.KINESIS_AHEAD, Kind.PASSED_OVER, Kind.LANES, Kind.FILTERED),
    *(Kind.S3_GONE, Kind.S3_DAMAGED),
}
PROMISES = (
    *("lost", "duplicated", "misrouted", "both", "misjudged", "miscounted"),
    *("ambiguous", "overlooked", "stuck"),
)
"""The attributes of a verdict that say how often a promise was broken: numbers, or lists of what it concerns."""
_MAY_BE_RAISED = ("LedgerUnavailableError", "BucketUnavailableError", "ShardUnreadableError")


@dataclass(slots=True)
class Verdict:
    """The result of a schedule."""

    seed: int  # of the schedule
    events: int  # the number of events sent
    accepted: int = 0  # the number of events accepted
    statuses: Counter[int] = field(default_factory=Counter)  # of the ingest's responses
    delivered: int = 0  # rows in Treasure Data
    dead: int = 0  # rows that are dead
    # accepted events that were nowhere at some time, even if a replay restored them
    lost: list[int] = field(default_factory=list)
    duplicated: list[int] = field(default_factory=list)  # events with more than one row
    misrouted: list[int] = field(default_factory=list)  # events in a database that was never their account's
    # events that are both in Treasure Data and dead or dropped, or dead twice
    both: list[int] = field(default_factory=list)
    # events that are dead for a reason that nothing explains
    misjudged: list[int] = field(default_factory=list)
    # where the balance that operators see differs from Treasure Data and S3
    miscounted: list[str] = field(default_factory=list)
    ambiguous: int = 0  # rows reported as possibly duplicated although the API key may query
    unasked: int = 0  # rows reported as possibly duplicated because the API key may not query
    # events that reached Treasure Data after a watermark had said that nothing received by then was missing
    overlooked: list[int] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)  # what has not settled
    watermarks: int = 0  # the number of watermarks given
    largest_delay: float = 0.0  # the longest time from acceptance to Treasure Data, in seconds
    strikes: Counter[Kind] = field(default_factory=Counter)  # how often each kind of trouble occurred
    # how often each rule of the specification was broken
    rules: Counter[str] = field(default_factory=Counter)
    # the first broken rules, each with its event and what happened before
    told: list[str] = field(default_factory=list)

    @property
    def violations(self) -> Counter[str]:
        """How often each promise was broken; only broken ones are included."""
        found = {name: getattr(self, name) for name in PROMISES}
        broken = {name: value if isinstance(value, int) else len(value) for name, value in found.items()}
        broken |= {f"rule: {rule}": count for rule, count in self.rules.items()}
        return Counter({name: count for name, count in broken.items() if count})


def judge(pipeline: Pipeline) -> Verdict:
    """Check the promises for a finished pipeline."""
    world = pipeline.world
    may_query = pipeline.schedule.setup.may_query
    verdict = Verdict(
        pipeline.schedule.seed,
        pipeline.schedule.events,
        accepted=len(pipeline.accepted),
        statuses=Counter(answer.status for answer in pipeline.answers),
        ambiguous=world.counts["RowsAmbiguous"] if may_query else 0,
        unasked=0 if may_query else world.counts["RowsAmbiguous"],
        watermarks=len(pipeline.observer.given),
        strikes=world.trouble.strikes,
    )
    verdict.lost += pipeline.missing
    places = _delivered(pipeline, verdict)
    forced = pipeline.forced.copy()
    reasons, copies, doubted = _dead(pipeline, verdict, forced, places)
    for number in doubted & places.keys():  # the ledger says of a dead row that Treasure Data may have it
        places[number] = places[number][1:]
    may_duplicate = verdict.unasked > 0
    dropped = pipeline.dropped
    held = reasons.keys() | copies.keys()
    excused = held | pipeline.contradicted | dropped | pipeline.gone | set(verdict.lost)
    verdict.lost += [
        number for number in pipeline.accepted if not places.get(number) and number not in excused
    ]
    for number in pipeline.sent:
        found, reason = places.get(number, []), reasons.get(number)
        if len(found) > 1 + forced[number] and not may_duplicate:
            verdict.duplicated.append(number)
        is_sent = len(found) > forced[number] and not may_duplicate
        if number in dropped and (is_sent or reason):
            verdict.both.append(number)
        if reason and is_sent:
            verdict.both.append(number)
        for why in filter(None, (reason, copies.get(number))):
            if pipeline.resends_dead and number not in pipeline.gone:
                verdict.stuck.append(f"event {number} is still dead: {why}")
            if not _is_explained(number, why, verdict.strikes):
                verdict.misjudged.append(number)
    _rest(pipeline, verdict)
    if not verdict.stuck and not may_duplicate and not pipeline.gone:
        verdict.miscounted += _compare(pipeline, places, Counter([*reasons, *copies]), forced)
    return verdict


def _is_explained(number: int, reason: str, strikes: Counter[Kind]) -> bool:
    causes = [kind for kind in _CAUSES.get(reason, ()) if strikes[kind]]
    return is_bad(number) if causes == [Kind.TD_BAD_ROWS] else bool(causes)


def _compare(
    pipeline: Pipeline, places: dict[int, list[str]], dead: Counter[int], forced: Counter[int]
) -> list[str]:
    """Return where the balance differs from Treasure Data and S3, by account and table."""
    held: dict[tuple[str, str], Counter[str]] = {}
    for number, sent in pipeline.sent.items():
        found, table = len(places.get(number, ())), dict(sent.events)[number]
        # a query about rows that a forced replay may have sent again finds those that were there already, and settles it
        found = max(min(found, 1), found - forced[number])
        counts = held.setdefault((sent.account, table), Counter())
        counts["delivered"] += found
        counts["dead"] += dead[number]
    told = {
        place: Counter({"delivered": rows.states[State.DELIVERED], "dead": rows.states[State.DEAD]})
        for place, rows in pipeline.audit.balance().tables.items()
    }
    return [
        f"{place}: the balance says {dict(told.get(place, Counter()))}, there are {dict(counts)}"
        for place, counts in held.items()
        if +counts != +told.get(place, Counter())
    ]


def _delivered(pipeline: Pipeline, verdict: Verdict) -> dict[int, list[str]]:
    """Return the databases that contain each event, once per row, and record delays and overlooked rows."""
    places: dict[int, list[str]] = {}
    for taken in pipeline.world.td.imports():
        for row in taken.rows:
            number = int(row["n"])
            is_first = number not in places
            places.setdefault(number, []).append(taken.database)
            verdict.delivered += 1
            if taken.database not in pipeline.world.mapped[pipeline.sent[number].account]:
                verdict.misrouted.append(number)
            if is_first and _is_overlooked(pipeline, row, taken.table, taken.at):
                verdict.overlooked.append(number)
            if number in pipeline.accepted:
                delay = taken.at - pipeline.accepted[number]
                verdict.largest_delay = max(verdict.largest_delay, delay)
    for number in [one for one in places if pipeline.sent[one].account in pipeline.restoring.remapped]:
        ((database, count),) = Counter(places[number]).most_common(1)
        places[number] = [database] * count  # it may be in two databases
    return places


def _is_overlooked(pipeline: Pipeline, row: Mapping[str, Any], table: str, at: float) -> bool:
    """Return whether a watermark had overlooked a row.

    Watermarks are only as accurate as arrival times, which another producer's records have as `received_at`. They assume that the event source
    passes over no records, and that no backup brings back what was dropped. Which rows are dead is unknown while their objects are away.
    """
    number = int(row["n"])
    sent = pipeline.sent[number]
    strikes = pipeline.world.trouble.strikes
    is_misdated = sent.dialect == "stream" and strikes[Kind.KINESIS_STAMPS]
    is_back = pipeline.restoring.since < at and any(number in one for one in pipeline.given_up.values())
    if is_misdated or is_back or not strikes.keys().isdisjoint(_OUT_OF_ORDER):
        return False
    return pipeline.observer.overlooked(number, sent.account, table, row["received_at"], at)


def _dead(
    pipeline: Pipeline, verdict: Verdict, forced: Counter[int], places: dict[int, list[str]]
) -> tuple[dict[int, str], dict[int, str], set[int]]:
    """Return each held event's reason if it is dead, an empty string if it waits, and which Treasure Data may have.

    The second reasons are of what was put again and died before anybody knew of a first copy, which counts beside it until then. Take dead
    rows out of `forced`, unless they are in doubt and are there.
    """
    reasons: dict[int, str] = {}
    copies: dict[int, str] = {}
    doubted: set[int] = set()
    garbage: Counter[bytes] = Counter()
    for held in pipeline.audit.held():
        chunk = f"{held.span.place.name} {held.key.name}"
        if held.values is None:
            is_told = held.span.place in pipeline.lost_places and held.entry.state is State.DEAD
            verdict.stuck += [] if is_told else [f"{chunk} has no rows"]
            continue
        if held.key.group.code:
            garbage.update(held.values)
            continue
        numbers = [int(row["n"]) for row in held.values]
        if held.entry.state is not State.DEAD:
            reasons |= dict.fromkeys(numbers, "")
            verdict.stuck.append(f"{chunk} is {held.entry.state.value}")
            continue
        is_doubted = held.entry.since is not None
        if held.span.is_forced:
            there = {one for one in numbers if is_doubted and len(places.get(one, ())) > forced[one]}
            forced.subtract(set(numbers) - there)
            continue
        verdict.dead += len(numbers)
        if is_doubted and held.key.group.request_id and not held.entry.database:  # it was never sent
            copies |= dict.fromkeys(numbers, held.entry.reason)
            continue
        doubted |= set(numbers if is_doubted else ())
        for number in numbers:
            if reasons.get(number):
                verdict.both.append(number)
            reasons[number] = held.entry.reason
    if garbage != Counter(pipeline.garbage):
        verdict.stuck.append(f"other undecodable records are kept than were put: {dict(garbage)}")
    return reasons, copies, doubted


def _rest(pipeline: Pipeline, verdict: Verdict) -> None:
    world = pipeline.world
    verdict.stuck += [f"shard {shard}" for shard in pipeline.backlog()]
    verdict.stuck += [f"message {one.message_id}" for one in world.queue.messages(world.queue_url)]
    verdict.stuck += [f"{name} is left over" for name in pipeline.audit.left_over()]
    for function in pipeline.functions:
        # the sender may raise if a service is unavailable, because its next run continues
        unavailable = _MAY_BE_RAISED if function is pipeline.sender else ()
        verdict.stuck += [error for name, error in function.errors if name not in unavailable]
        # with nothing wrong, every invocation ends in time, whatever it is given
        verdict.stuck += [
            f"{name} did not end in time"
            for name, began in function.timed_out.items()
            if 0 < pipeline.healed_at < began
        ]
