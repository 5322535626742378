"""`sluice replay`: rereads a range of the stream, and passes to the worker what is in no span.

The ledger decides what is sent: delivered rows are skipped, and rows that the event source passed over are delivered. --force sends
delivered rows again that Treasure Data has lost, once per tag, from S3.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from itertools import batched

import click

from ops import known_accounts, screen
from ops.books import planned_spans
from ops.books.replayed import Planned, Replayed, delivered_in, kept_in, outcome
from ops.failure import INTERRUPTED, UNFINISHED, Failure
from ops.sending import send
from ops.stack import Stack, works_on_stack
from ops.stream.place import PLACE, from_option
from ops.stream.reader import RangeEnd, StreamReader
from ops.stream.replayer import HoldsError, Progressing, Replay
from shared.clock import Clock, SystemClock
from shared.errors import InvalidReplayError
from worker.chain import ChainId
from worker.forced_replay import Wanted
from worker.record import START
from worker.span import Place, Span

_PLACES = 100  # spans in one invocation of a forced replay


@click.command("replay")
@works_on_stack
@from_option
@click.option(
    "--to",
    "end",
    type=PLACE,
    default=RangeEnd(),
    help="End time (exclusive) or sequence number (inclusive). Default: now.",
)
@click.option("--shard", "only", metavar="ID", help="Only this shard. Required with sequence numbers.")
@click.option("--force", is_flag=True, help="Send delivered rows once more, from S3. Needs --from and --to.")
@click.option(
    "--tag",
    help="Name of a forced replay. No row is sent twice under one tag. Default: derived from its range and filters.",
)
@click.option("--account", help="With --force: only rows of this account.")
@click.option("--table", help="With --force: only rows of this table.")
@click.option("--database", help="With --force: only rows that went to this database.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def command(
    stack: Stack,
    *,
    start: RangeEnd,
    end: RangeEnd,
    only: str | None,
    force: bool,
    tag: str | None,
    account: str | None,
    table: str | None,
    database: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deliver what was missed in a range of the stream; with --force, send delivered rows again.

    The ledger decides what is sent: delivered rows are skipped, missed rows are delivered. You can safely repeat a replay, run it
    next to the live worker, or choose too wide a range. --force sends delivered rows once more that Treasure Data has lost or that went
    to a wrong database, once per tag.
    """
    if (start.number is not None or end.number is not None) and only is None:
        raise click.UsageError(
            "a sequence number needs its shard: add --shard. A time is 2026-11-24T03:00 or, so long ago, 90min"
        )
    if not force and (tag or account or table or database):
        raise click.UsageError(
            "--tag, --account, --table and --database work only with --force: without it, the ledger decides about each row"
        )
    if _is_reversed(start, end):
        raise click.UsageError("--from is not before --to: swap them")
    clock = SystemClock()
    if start.at is not None and start.at > clock.now():
        raise click.UsageError("--from is in the future: times are in UTC, unless they have an offset")
    if force:
        if only is not None:
            raise click.UsageError("--force reads S3, not shards: leave out --shard")
        wanted = _wanted(clock, (_fixed(start), _fixed(end)), tag, (account, table, database))
        raise click.exceptions.Exit(_force(stack, wanted, dry_run=dry_run, yes=yes, as_json=as_json))
    reader = StreamReader(stack.shards(), clock)
    reader.check(start)
    shards = reader.shards(only)
    if not as_json:
        screen.say(
            f"Replaying {screen.plural(len(shards), 'shard')} from {_text(start, 'the oldest record')} to {_text(end, 'now')}. "
            "Rows already delivered are skipped."
        )
    if dry_run:
        _count(reader, shards, start, end, as_json=as_json)
        return
    raise click.exceptions.Exit(_run(stack, reader, shards, start, end, as_json=as_json))


def _is_reversed(start: RangeEnd, end: RangeEnd) -> bool:
    if start.number is not None and end.number is not None:
        return start.number > end.number
    return start.at is not None and end.at is not None and start.at >= end.at


def _text(border: RangeEnd, otherwise: str) -> str:
    if border.number is not None:
        return str(border.number)
    return otherwise if border.at is None else screen.utc(border.at)


def _count(reader: StreamReader, shards: list[str], start: RangeEnd, end: RangeEnd, *, as_json: bool) -> None:
    counts = {shard: sum(map(len, reader.read(shard, start, end))) for shard in shards}
    if as_json:
        screen.show_json({"shards": counts, "records": sum(counts.values()), "dry_run": True})
    else:
        screen.show_table(("shard", "records"), list(counts.items()))
        screen.say(screen.DRY_RUN)


def _run(
    stack: Stack,
    reader: StreamReader,
    shards: list[str],
    start: RangeEnd,
    end: RangeEnd,
    *,
    as_json: bool,
) -> int:
    """Replay shards, have the sender take what waits, and report what became of each row; return the exit code."""
    planned, done = Planned(stack.membership()), dict[str, Progressing]()
    replay = Replay(reader, lambda event: stack.invoke("WorkerFunction", event), reader.clock, planned)
    code, stopped = 0, ""
    with screen.progress("reading", hidden=as_json, unit="records read") as show:

        def settled(progress: Progressing) -> None:
            done[progress.shard] = progress
            at = f", arrived {screen.utc(int(progress.arrived))}" if progress.arrived else ""
            show(description=f"{progress.shard}{at}", completed=sum(one.records for one in done.values()))

        try:
            for shard in shards:
                replay.shard(shard, start, end, settled)
        except KeyboardInterrupt:
            code, stopped = INTERRUPTED, "interrupted"
        except HoldsError as error:
            code, stopped = UNFINISHED, f"{error} (`sluice status {stack.option}` shows why)"
    if not code:
        _send_waiting(stack, planned, as_json=as_json)
    replayed = planned.replayed(sum(one.rows for one in done.values()))
    records = sum(one.records for one in done.values())
    if as_json:
        by_shard = {shard: progress.records for shard, progress in done.items()}
        rows = asdict(replayed)
        shown = {"complete": not code, "records": records, "shards": by_shard, "rows": rows, "tag": None}
        screen.show_json(shown | {"stopped": stopped})
        return code
    read, sent = screen.plural(records, "record"), screen.plural(replayed.sent, "row")
    said = f"{read} read. {sent} sent, {replayed.passed_over:,} skipped{replayed.left(stack.option)}."
    if not code:
        screen.say(f"Done: {said}")
        return 0
    screen.note(f"{stopped}; {said} To continue, run the same command again: it skips what is in a span.")
    return code


def _send_waiting(stack: Stack, planned: Planned, *, as_json: bool) -> None:
    """Have the sender take the chunks that wait."""
    ledger, doing, waiting = stack.ledger(), "sending what waits", planned.waiting()
    event = {"chunks": [name for names in waiting.values() for name in names]}
    with screen.progress(doing, hidden=as_json, unit="rows delivered") as show:
        send(stack, event, lambda rows: show(description=doing, completed=rows))
    for places in batched(waiting, _PLACES, strict=False):
        planned.refresh(ledger.get_all(places).values())


def _fixed(border: RangeEnd) -> int:
    """Return a border of a forced replay in UNIX milliseconds: the same command, run again, must mean the same rows."""
    if border.at is None or not border.is_fixed:
        raise click.UsageError(
            "--force needs --from and --to as absolute times (2026-11-24T03:00). Then the same command, run again, continues the same "
            "replay and duplicates nothing"
        )
    return round(border.at * 1000)


def _wanted(
    clock: Clock,
    borders: tuple[int, int],
    tag: str | None,
    filters: tuple[str | None, str | None, str | None],
) -> Wanted:
    """Return what a forced replay sends. Its tag, if none is given, is the same for the same rows."""
    if borders[1] > clock.now() * 1000:
        raise click.UsageError("--force needs a range in the past: rows may still arrive before --to")
    tag = tag or hashlib.sha256(repr((borders, filters)).encode()).hexdigest()[:12]
    try:
        return Wanted(tag, *filters, *borders)
    except InvalidReplayError as error:
        raise click.UsageError(str(error)) from error


def _force(stack: Stack, wanted: Wanted, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Send delivered rows of a range once more; return the exit code."""
    since, until = (wanted.since or 0) / 1000, (wanted.until or 0) / 1000
    of = "".join(f"{part} " for part in (wanted.database, wanted.account, wanted.table) if part)
    if not as_json:
        screen.say(
            f"Sending {of}again: rows that arrived from {screen.utc(since)} to {screen.utc(until)}, under the tag {wanted.tag}."
        )
    held = stack.shards().retention_seconds()
    spans = [
        span
        for span in planned_spans.spans(stack.ledger(), stack.objects(), since, until, held=held)
        if not span.is_forced and any(wanted.has(span, key) for key in span.chunks)
    ]
    if not spans:
        known_accounts.check(stack, wanted.account)
    if not spans and not as_json:
        screen.say(
            "No such rows arrived then: check --account, --table and --database. Times are in UTC, unless they have an offset."
        )
        return 0
    if dry_run:
        rows = sum(span.rows(key) for span in spans for key in span.chunks if wanted.has(span, key))
        if as_json:
            screen.show_json({"spans": len(spans), "rows": rows, "dry_run": True})
        else:
            counted = f"{screen.plural(len(spans), 'span')} with at most {screen.plural(rows, 'row')}"
            screen.say(f"{counted}. {screen.DRY_RUN}")
        return 0
    screen.confirm("Rows that Treasure Data still has will be duplicated. Send them again?", yes=yes)
    left_out: Counter[str] = Counter()
    results: list[Replayed] = []
    with screen.progress("sending", hidden=as_json, unit="rows delivered") as show:

        def tell(rows: int) -> None:
            said = f"sending, {min(len(results) * _PLACES, len(spans)):,} of {screen.plural(len(spans), 'span')} done"
            show(description=said, completed=sum(one.sent for one in results) + rows)

        for batch in batched(spans, _PLACES, strict=False):
            tell(0)
            results.append(_send_forced(stack, wanted, batch, left_out, tell))
    result = Replayed(*(sum(getattr(one, part.name) for one in results) for part in fields(Replayed)))
    if as_json:
        shown = {"complete": True, "spans": len(spans), "rows": asdict(result), "tag": wanted.tag}
        screen.show_json(shown | {"left_out": dict(left_out), "stopped": ""})
        return 0
    sent = screen.plural(result.sent, "row")
    screen.say(
        f"Done: {sent} sent again, {result.passed_over:,} sent under this tag before{result.left(stack.option)}."
    )
    for place, rows in sorted(left_out.items()):
        screen.say(
            f"Not sent: {screen.plural(rows, 'row')} of {place}, not delivered before or no longer kept."
        )
    return 0


def _send_forced(
    stack: Stack, wanted: Wanted, spans: Sequence[Span], left_out: Counter[str], tell: Callable[[int], None]
) -> Replayed:
    """Append the wanted rows of spans once more, and have the sender take them; return their outcome, and add what was left out."""
    ledger = stack.ledger()
    places = [Place(ChainId.forced(wanted.tag, span.chain, span.after), START) for span in spans]
    before = delivered_in(ledger.get_all(places).values())
    left_out.update(_append(stack, wanted, spans))
    found = ledger.get_all(places)
    names = [[place.chain.name, START, key.name] for place, span in found.items() for key in span.chunks]
    send(stack, {"chunks": names}, tell)
    after = ledger.get_all(places).values()
    return outcome(kept_in(after), after, before)


def _append(stack: Stack, wanted: Wanted, spans: Iterable[Span]) -> Counter[str]:
    """Have the wanted rows of spans appended once more; return the numbers of those that were left out, by account and table."""
    places = [[span.chain.name, span.after] for span in spans]
    members, left_out = asdict(wanted), Counter[str]()
    while places:
        answer = stack.invoke("SenderFunction", {"force": {**members, "places": places}})
        if "error" in answer:
            raise Failure(answer["message"])
        if not answer["done"]:
            raise Failure("the sender had no time for a span: run the same command again")
        left_out.update(answer["left_out"])
        places = places[answer["done"] :]
    return left_out
