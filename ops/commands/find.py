"""`sluice find`: shows where an event is and what happened to it."""

import time
from collections.abc import Iterator
from typing import Any

import click

from ops import known_accounts, personal_data, screen
from ops.events.condition import ColumnCondition
from ops.events.event_query import INACCURACY_SECONDS, EventQuery
from ops.events.finder import Finder, Searched
from ops.events.found_event import ON_STREAM, QUEUED, FoundEvent
from ops.events.seen_event import text_of
from ops.failure import UNFINISHED, Failure
from ops.moment import LENGTH, MOMENT
from ops.screen import printable
from ops.stack import Stack, works_on_stack
from shared.clock import SystemClock
from worker.record import sequence_number
from worker.states import State

_DAY, _HOUR = 86_400.0, 3600.0
_MOST_IN_FULL = 5

_NEXT = {
    QUEUED: "It waits in the overflow queue; the drainer puts it on the stream.",
    ON_STREAM: "It is on the stream, and in no span yet. `sluice status {option}` shows why if that lasts.",
    State.WAITING: "It waits in S3 and is sent automatically. `sluice status {option}` shows what it waits for.",
    State.AGAIN: "It was put on the stream twice. Within minutes it is certain whether this copy counts.",
    State.DEAD: "Fix the cause, then run `sluice redrive {option} --kind dead`.",
    State.DROPPED: "An operator gave it up.",
    State.REPLACED: "An operator replaced it: search for its event id to find the new row.",
    State.REJECTED: "Its sender received this error code, which says what to fix.",
    State.COPY: "It does not count, because another copy of its request does.",
}
_FORBIDDEN = (
    "Treasure Data answers 403: the API key may not import into {database}. To have it sent automatically, grant it, or correct the "
    "account's database in accounts.yaml and apply that."
)
_WHERE = {QUEUED: "the overflow queue", ON_STREAM: "the stream", State.DELIVERED: "Treasure Data"}


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
    "--for", "seconds", type=LENGTH, default="5min", show_default=True, help="Stop searching after this long."
)
@click.option("--details", is_flag=True, help="Also show its span, its chunk and the id of its import.")
@click.option("--raw", is_flag=True, help="Show personal data such as addresses and visitor ids.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line: the events, then what was searched.",
)
def command(
    stack: Stack,
    *,
    terms: tuple[tuple[str, str], ...],
    account: str,
    table: str,
    since: float | None,
    seconds: float,
    details: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Show where an event is and what became of it.

    Several ids find any of these events; visitor=ID is short for td_client_id=ID. The search prints what it finds at once, changes
    nothing, and ends at the moment it began. Personal data is replaced by stand-ins, unless you ask for --raw.
    """
    ids = frozenset(value for column, value in terms if not column)
    columns = {column: value for column, value in terms if column}
    query = EventQuery(account, table, columns, ids=ids)
    since = default_since(query, time.time()) if since is None else since
    count = 0
    with screen.progress("searching", hidden=as_json) as show:
        finder = Finder(
            stack,
            query,
            since=since,
            seconds=seconds,
            clock=SystemClock(),
            progress=lambda searched: show(description=_reach(searched)),
        )
        for one in finder:
            count += 1
            if as_json:
                screen.show_json_line(described(one, raw=raw))
            else:
                is_brief = count > _MOST_IN_FULL  # the first few in full, the others in one line each
                text = lines_of(one, stack.option, details=details, raw=raw)
                for line in [_brief(one)] if is_brief else text:
                    screen.say(line)
    searched = finder.searched
    if as_json:
        screen.show_json_line(
            {
                "searched": {
                    "since": screen.utc(since),
                    "spans": searched.spans,
                    "records": searched.records,
                    "unreadable": searched.unreadable,
                    "hidden_messages": searched.hidden,
                    "complete": searched.is_complete,
                }
            }
        )
    elif count and not raw:
        screen.note(f"Note: {personal_data.EXPLANATION}")
    if searched.unreadable and not as_json:
        what = screen.plural(searched.unreadable, "object or chunk", "objects or chunks")
        screen.note(
            f"Note: {what} could not be read to {'its' if searched.unreadable == 1 else 'their'} end."
        )
    if not count:
        known_accounts.check(stack, account)
        raise Failure(_not_found(query, since, searched))
    if not searched.is_complete:
        screen.note(f"Note: the search ran out of time; {_reach(searched)}. Use a longer --for.")
        raise click.exceptions.Exit(UNFINISHED)


def default_since(query: EventQuery, now: float) -> float:
    """Return where a search begins, UNIX seconds: at the time in an id, if that is a UUIDv7 and not in the future."""
    began = query.began
    if began is not None and began < now + INACCURACY_SECONDS:
        return max(0.0, began - INACCURACY_SECONDS)
    return now - (_DAY if query.ids else _HOUR)


def described(one: FoundEvent, *, raw: bool) -> dict[str, Any]:
    """Return what was found as a JSON object, without empty members."""
    seen, span = one.seen, one.span
    members = {
        "account": seen.account,
        "table": seen.table,
        "event_id": seen.event_id,
        "request_id": seen.request_id,
        "received": screen.utc(seen.at),
        "arrived": screen.utc(seen.arrived_at) if seen.arrived_at else "",
        "shard": seen.shard,
        "sequence_number": seen.sequence_number,
        "state": one.state,
        "reason": one.reason,
        "words": "" if one.entry is None else one.entry.words,
        "since": screen.utc(one.at) if one.at else "",
        "database": one.database,
        "unique_id": one.unique_id,
        "chunk": "" if one.key is None else one.key.name,
        "owner": one.owner,
        "forced": one.is_forced,
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
        "row": dict(seen.row) if raw else personal_data.scrub(seen.row),
    }


def lines_of(one: FoundEvent, option: str, *, details: bool, raw: bool) -> Iterator[str]:
    """Yield what was found as lines of text: received, where it is, what became of it, what to do."""
    seen, span = one.seen, one.span
    yield printable(f"{_word(one.state).upper()}  {_name(one)}")
    yield f"  received   {screen.utc(seen.at)}" + (f", request {seen.request_id}" if seen.request_id else "")
    where = _WHERE.get(one.state, "S3")
    yield f"  where      {where}" + (f", database {one.database}" if one.database else "")
    since = f" since {screen.utc(one.at)}" if one.at else ""
    again = ", sent once more by a forced replay" if one.is_forced else ""
    yield f"  state      {_word(one.state)}{since}{again}" + (f": {one.reason}" if one.reason else "")
    if one.entry is not None and one.entry.words:
        yield printable(f'  said       "{one.entry.words}" (Treasure Data)')
    if one.owner:
        yield f"  counts as  {one.owner}"
    if details and seen.shard:
        yield f"  record     {seen.sequence_number} of {seen.shard}"
    if details and span is not None:
        yield f"  span       {span.place.name}, planned {screen.utc(span.planned_at / 1000)}"
    if details and one.key is not None:
        yield f"  chunk      {one.key.name}"
    if details and one.unique_id:
        yield f"  unique_id  {one.unique_id}"
    row = seen.row if raw else personal_data.scrub(seen.row)
    if row:
        yield printable("  row        " + " ".join(f"{name}={text_of(row[name])}" for name in row))
    is_forbidden = one.state is State.WAITING and one.reason == "http_403" and one.database
    if step := _FORBIDDEN if is_forbidden else _NEXT.get(one.state, ""):
        yield f"  {step.format(option=option, database=one.database)}"


def _name(one: FoundEvent) -> str:
    if one.state is State.COPY:
        return "a repeated request"  # its events are not read
    return f"{one.seen.event_id or 'an event without an id'} of {one.seen.of}"


def _brief(one: FoundEvent) -> str:
    parts = screen.utc(one.seen.at), one.seen.of, printable(one.seen.event_id), _word(one.state), one.reason
    return "  ".join(filter(None, parts))


def _word(state: str) -> str:
    return state.replace("_", " ")


def _reach(searched: Searched) -> str:
    at = f" up to {screen.utc(int(searched.at))}" if searched.at else ""
    spans, records = screen.plural(searched.spans, "span"), screen.plural(searched.records, "record")
    return f"{spans}{at} and {records} after them searched"


def _not_found(query: EventQuery, since: float, searched: Searched) -> str:
    hidden = ""
    if searched.hidden:
        count = screen.plural(searched.hidden, "message")
        hidden = f" SQS currently hides {count} of the overflow queue, which may contain it: try again in a minute."
    if not searched.is_complete:
        return f"not found in time: {_reach(searched)}.{hidden} Use a longer --for or a later --since"
    columns = ["event_id"] if query.ids else sorted(query.columns)
    return (
        f"not found since {screen.utc(int(since))}: {_reach(searched)}.{hidden} Use an earlier --since. If the rows are no longer kept "
        f"in S3, query Treasure Data by {' and '.join(columns)}"
    )
