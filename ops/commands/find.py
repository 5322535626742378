"""`sluice find`: shows where an event is and what happened to it."""

import time
from collections.abc import Iterator
from typing import Any

import click

from ops import personal_data, screen
from ops.events.condition import ColumnCondition
from ops.events.event_tail import text_of
from ops.events.finder import Finder, Stage, Whereabouts
from ops.events.sightings import INACCURACY_SECONDS, EventQuery, Places, Searched, Sighting
from ops.failure import UNFINISHED, Failure
from ops.moment import LENGTH, MOMENT
from ops.screen import printable
from ops.stack import Stack, works_on_stack
from shared.clock import SystemClock
from worker.record import sequence_number

_DAY, _HOUR = 86_400.0, 3600.0
_MOST_IN_FULL = 5

_NEXT = {
    Stage.QUEUED: "It waits in the overflow queue; the drainer puts it on the stream.",
    Stage.WAITING: "It is on the stream, and the worker has not planned it yet. `sluice status {option}` shows why.",
    Stage.IN_FLIGHT: "It is planned and being sent. `sluice status {option}` shows what it waits for.",
    Stage.PARKED: "It will be sent automatically once its database works again.",
    Stage.IN_DOUBT: "The redrive will settle it by querying Treasure Data. To do this now: `sluice redrive {option} --kind doubt`.",
    Stage.DEAD_LETTER: "Fix the cause, then run `sluice redrive {option} --kind dead`.",
    Stage.DROPPED: "An operator gave it up.",
    Stage.MISSING: "Its record expired before it could be sent.",
    Stage.REJECTED: "Its sender received this error code, which says what to fix.",
    Stage.COPY: "It does not count, because another copy of its request does.",
    Stage.UNKNOWN: "The records that were planned with it have expired, and not all of their rows share a state.",
}
_WORDS = {
    Stage.IN_FLIGHT: "in flight",
    Stage.IN_DOUBT: "in doubt",
    Stage.DEAD_LETTER: "dead letter",
}


@click.command("find")
@works_on_stack
@click.argument(
    "terms",
    metavar="EVENT_ID|REQUEST_ID|COLUMN=VALUE...",
    type=ColumnCondition(ids=True),
    nargs=-1,
    required=True,
)
@click.option("--account", default="", help="Only events of this account.")
@click.option("--table", default="", help="Only events of this table.")
@click.option(
    "--since",
    type=MOMENT,
    help="Search from this time on. Default: the time in the id, else a day ago, or an hour ago for columns.",
)
@click.option(
    "--for",
    "seconds",
    type=LENGTH,
    default=300.0,
    show_default="5min",
    help="Stop searching after this long.",
)
@click.option("--raw", is_flag=True, help="Show personal data such as addresses and visitor ids.")
@screen.json_option
def command(
    stack: Stack,
    *,
    terms: tuple[tuple[str, str], ...],
    account: str,
    table: str,
    since: float | None,
    seconds: float,
    raw: bool,
    as_json: bool,
) -> None:
    """Show where an event is and what happened to it: stream, archive, overflow queue, Treasure Data, or set aside.

    Several ids find any of these events; visitor=ID is short for td_client_id=ID. The search consumes and changes nothing. It uses
    half of the stream's read capacity, so the worker keeps running.
    """
    ids = frozenset(value for column, value in terms if not column)
    columns = {column: value for column, value in terms if column}
    query = EventQuery(account, table, columns, ids=ids)
    since = default_since(query, time.time()) if since is None else since
    finder = Finder(
        places=Places(
            stack.shards(), stack.archive(), stack.client("sqs"), stack.outputs["OverflowQueueUrl"]
        ),
        ledger=stack.ledger(),
        store=stack.set_aside_store(),
        clock=SystemClock(),
    )
    with screen.progress("searching", hidden=as_json) as show:
        found, searched = finder.find(
            query, since, seconds, lambda searched: show(description=_reach(searched))
        )
    if as_json:
        screen.show_json(
            {
                "events": [described(one, raw=raw) for one in found],
                "searched": {
                    "since": screen.utc(since),
                    "records": searched.records,
                    "shards": searched.shards,
                    "hidden_messages": searched.hidden,
                    "complete": searched.is_complete,
                },
            }
        )
    elif len(found) <= _MOST_IN_FULL:
        for one in found:
            for line in lines_of(one, stack.option, raw=raw):
                screen.say(line)
    else:
        screen.show_table(("received", "table", "event_id", "state", "reason"), map(_row, found))
    if not found:
        raise Failure(_not_found(since, searched))
    if not searched.is_complete:
        click.echo(f"Note: the search ran out of time; {_reach(searched)}. Use a longer --for.", err=True)
        raise click.exceptions.Exit(UNFINISHED)


def default_since(query: EventQuery, now: float) -> float:
    """Return where a search begins, UNIX seconds: at the time in an id, if that is a UUIDv7 and not in the future."""
    began = query.began
    if began is not None and began < now + INACCURACY_SECONDS:
        return began - INACCURACY_SECONDS
    return now - (_DAY if query.ids else _HOUR)


def described(one: Whereabouts, *, raw: bool) -> dict[str, Any]:
    """Return an event's whereabouts as a JSON object, without empty members."""
    seen, span = one.seen, one.span
    members = {
        "account": seen.account,
        "table": seen.table,
        "event_id": seen.event_id,
        "request_id": seen.request_id,
        "received": screen.utc(seen.at),
        "state": one.stage.value,
        "reason": one.reason,
        "since": screen.utc(one.at) if one.at else "",
        "database": one.database,
        "unique_id": one.unique_id,
        "object": one.object_name,
        "chunk": "" if one.key is None else one.key.name,
        "owner": "" if one.owner is None else one.owner.name,
    }
    return {name: value for name, value in members.items() if value} | {
        "span": None
        if span is None
        else {
            "chain": span.chain.name,
            "after": span.after,
            "first": sequence_number(span.first),
            "last": sequence_number(span.last),
            "planned": screen.utc(span.planned_at / 1000),
        },
        "places": [_place(sighting) for sighting in one.sightings],
        "row": dict(seen.row) if raw else personal_data.scrub(seen.row),
    }


def _place(sighting: Sighting) -> dict[str, str]:
    seen = sighting.seen
    members = {
        "source": sighting.source,
        "shard": seen.shard,
        "sequence_number": seen.sequence_number,
        "arrived": screen.utc(seen.arrived_at) if seen.arrived_at else "",
    }
    return {name: value for name, value in members.items() if value}


def lines_of(one: Whereabouts, option: str, *, raw: bool) -> Iterator[str]:
    """Yield an event's whereabouts as lines of text."""
    seen, span = one.seen, one.span
    where = f"{seen.account}.{seen.table}" if seen.table else seen.account
    yield printable(f"{_word(one.stage).upper()}  {seen.event_id or 'an event without an id'} of {where}")
    yield f"  received   {screen.utc(seen.at)}" + (f", request {seen.request_id}" if seen.request_id else "")
    for sighting in one.sightings:
        place = sighting.seen
        arrived = f", arrived {screen.utc(place.arrived_at)}" if place.arrived_at else ""
        where = f"{place.shard} {place.sequence_number}".strip()
        yield f"  {sighting.source.replace('_', ' '):10} {where}{arrived}"
    if one.owner is not None:
        yield f"  counts as  {one.owner.name}"
    if span is not None:
        yield f"  span       {sequence_number(span.first)} to {sequence_number(span.last)} of {span.chain.name}"
        yield f"  planned    {screen.utc(span.planned_at / 1000)}"
    if one.key is not None:
        yield f"  chunk      {one.key.name}" + (f" to {one.database}" if one.database else "")
    if one.unique_id:
        yield f"  unique_id  {one.unique_id}"
    if one.object_name:
        yield f"  object     {one.object_name}"
    since = f" since {screen.utc(one.at)}" if one.at else ""
    yield f"  state      {_word(one.stage)}{since}" + (f": {one.reason}" if one.reason else "")
    row = seen.row if raw else personal_data.scrub(seen.row)
    yield printable("  row        " + " ".join(f"{name}={text_of(row[name])}" for name in row))
    if one.stage in _NEXT:
        yield f"  {_NEXT[one.stage].format(option=option)}"


def _row(one: Whereabouts) -> tuple[str, ...]:
    seen = one.seen
    where = f"{seen.account}.{seen.table}" if seen.table else seen.account
    return screen.utc(seen.at), where, printable(seen.event_id), _word(one.stage), one.reason


def _word(stage: Stage) -> str:
    return _WORDS.get(stage, stage.value)


def _reach(searched: Searched) -> str:
    at = f" up to {screen.utc(int(searched.at))}" if searched.at else ""
    records = screen.plural(searched.records, "record")
    return f"{searched.ended} of {screen.plural(searched.shards, 'shard')} and {records}{at} were searched"


def _not_found(since: float, searched: Searched) -> str:
    hidden = ""
    if searched.hidden:
        count = screen.plural(searched.hidden, "message")
        hidden = f" SQS currently hides {count} of the overflow queue, which may contain it: try again in a minute."
    if not searched.is_complete:
        return f"not found in time: {_reach(searched)}.{hidden} Use a longer --for or a later --since"
    return (
        f"not found since {screen.utc(int(since))}: {_reach(searched)}.{hidden} Use an earlier --since. If it has expired on the "
        "stream and in the archive, query Treasure Data for its event_id"
    )
