"""`sluice replay`: rereads a range of the stream, or of the archive, and passes it to the worker.

The ledger decides what is sent: delivered rows are skipped, and rows that the event source missed are delivered. --force sends
rows again that Treasure Data has lost, once per tag.
"""

import hashlib
import shlex
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import click
from rich.progress import MofNCompleteColumn

from ops import screen
from ops.books.replayed import Planned, Replayed
from ops.books.set_aside import chunks
from ops.failure import INTERRUPTED, UNFINISHED, Failure
from ops.stack import Stack, works_on_stack
from ops.stream.history import StreamHistory
from ops.stream.place import PLACE
from ops.stream.reader import RangeEnd
from ops.stream.replayer import HoldsError, Progressing, Replay, Stretch
from shared.clock import SystemClock
from shared.errors import InvalidReplayError
from worker.forced_replay import ForcedReplay
from worker.selection import Selection


@click.command("replay")
@works_on_stack
@click.option(
    "--from",
    "start",
    type=PLACE,
    default=RangeEnd(),
    help="Start time or sequence number. Default: the stream's oldest record.",
)
@click.option(
    "--to",
    "end",
    type=PLACE,
    default=RangeEnd(),
    help="End time (exclusive) or sequence number (inclusive). Default: now.",
)
@click.option("--shard", "only", metavar="ID", help="Only this shard. Required with sequence numbers.")
@click.option("--force", is_flag=True, help="Send rows again even if the ledger says they are delivered.")
@click.option(
    "--tag",
    help="Name of a forced replay. No row is sent twice under one tag. Default: derived from --from and --to.",
)
@click.option("--account", help="With --force: only rows of this account.")
@click.option("--table", help="With --force: only rows of this table.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    stack: Stack,
    *,
    start: RangeEnd,
    end: RangeEnd,
    only: str | None,
    force: bool,
    tag: str | None,
    account: str | None,
    table: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Reread a range of the stream, or of the archive, and pass it to the worker.

    The ledger decides what is sent: delivered rows are skipped, missed rows are delivered. You can safely repeat a replay, run it
    next to the live worker, or choose too wide a range. --force sends rows again that Treasure Data has lost, once per tag.
    """
    if (start.number is not None or end.number is not None) and only is None:
        raise click.UsageError("a sequence number needs its shard: add --shard")
    if not force and (tag or account or table):
        raise click.UsageError(
            "--tag, --account and --table work only with --force: without it, the ledger decides about each row"
        )
    if _is_reversed(start, end):
        raise click.UsageError("--from is not before --to: swap them")
    forced = _forced(start, end, tag, account, table) if force else None
    clock = SystemClock()
    history = stack.history(clock)
    history.check(start)
    shards = history.names(start, end, only)
    stretch = Stretch(start, end, forced)
    if not as_json:
        screen.say(_intention(stretch, shards))
    if dry_run:
        _count(history, shards, stretch, as_json=as_json)
        if not as_json:
            screen.say(screen.DRY_RUN)
        return
    planned = Planned(stack.ledger())
    replay = Replay(history, lambda event: stack.invoke("WorkerFunction", event), clock, planned)
    if forced is not None:
        screen.confirm("Rows that Treasure Data still has will be duplicated. Send them again?", yes=yes)
        # First deliver what is not delivered yet: the worker holds a forced replay until the shard's own chain has it.
        stretch = Stretch(start, _past(end, clock.now()), forced)
        plain = Stretch(start, stretch.end)
        code = run(replay, stack, shards, plain, then=stretch, as_json=as_json)
        if code:
            ctx.exit(code)
        _check_set_aside(stack, shards, stretch, forced)
        planned.forget()
    ctx.exit(run(replay, stack, shards, stretch, as_json=as_json, planned=planned))


def _check_set_aside(stack: Stack, shards: Collection[str], stretch: Stretch, forced: ForcedReplay) -> None:
    """Refuse a forced replay while rows that it may select are parked or in doubt.

    If a table has set-aside rows in a span, the replay sends nothing of that table in that span, and never will under this tag.

    Raises:
        Failure: such rows are set aside.
    """
    waiting = sum(
        one.entry.rows
        for one in chunks(stack.ledger(), Selection(account=forced.account, table=forced.table))
        if not {one.span.chain.shard, one.span.chain.root.name}.isdisjoint(shards)
        and not one.span.chain.is_forced
        and stretch.may_overlap(one.span)
    )
    if waiting:
        raise Failure(
            f"{screen.plural(waiting, 'row')} that may be in this range {'is' if waiting == 1 else 'are'} set aside, and the replay "
            f"would skip other rows planned with {'it' if waiting == 1 else 'them'}. Run `sluice redrive {stack.option}` first, "
            "or narrow the replay with --account and --table"
        )


def _is_reversed(start: RangeEnd, end: RangeEnd) -> bool:
    if start.number is not None and end.number is not None:
        return start.number > end.number
    return start.at is not None and end.at is not None and start.at >= end.at


def _past(end: RangeEnd, now: float) -> RangeEnd:
    """Return an end before which no more records can arrive."""
    if end.number is not None or (end.at is not None and end.at <= now):
        return end
    return RangeEnd(at=int(now * 1000) / 1000)


def _forced(
    start: RangeEnd, end: RangeEnd, tag: str | None, account: str | None, table: str | None
) -> ForcedReplay:
    if tag is None:
        if not (start.is_fixed and end.is_fixed):
            raise click.UsageError(
                "--force needs --from and --to as absolute times (2026-11-24T03:00) or sequence numbers, or a --tag. Then the same "
                "command, run again, continues the same replay and duplicates nothing"
            )
        tag = hashlib.sha256(repr((start.at, start.number, end.at, end.number)).encode()).hexdigest()[:12]
    try:
        return ForcedReplay(tag, account, table)
    except InvalidReplayError as error:
        raise click.UsageError(str(error)) from error


def _intention(stretch: Stretch, shards: list[str]) -> str:
    what = f"{screen.plural(len(shards), 'shard')} from {_text(stretch.start, 'the oldest record')} to {_text(stretch.end, 'now')}"
    if stretch.forced is None:
        return f"Replaying {what}. Rows already delivered are skipped."
    of = " ".join(part for part in (stretch.forced.account, stretch.forced.table) if part)
    return f"Sending {f'{of} ' if of else ''}again: {what}, under the tag {stretch.forced.tag}."


def _text(border: RangeEnd, otherwise: str) -> str:
    if border.number is not None:
        return str(border.number)
    return otherwise if border.at is None else screen.utc(border.at)


def _count(history: StreamHistory, shards: list[str], stretch: Stretch, *, as_json: bool) -> None:
    counts = {
        shard: sum(len(piece.records) for piece in history.pieces(shard, stretch.start, stretch.end))
        for shard in shards
    }
    if as_json:
        screen.show_json({"shards": counts, "records": sum(counts.values())})
    else:
        screen.show_table(("shard", "records"), list(counts.items()))


def run(
    replay: Replay,
    stack: Stack,
    shards: list[str],
    stretch: Stretch,
    *,
    as_json: bool,
    then: Stretch | None = None,
    planned: Planned | None = None,
) -> int:
    """Replay shards and report the result; return the exit code.

    If a second pass follows (`then`), report only an early stop. `planned` supplies the rows by outcome.
    """
    done: dict[str, Progressing] = {}
    code, why = 0, ""
    with screen.progress("reading", MofNCompleteColumn(), hidden=as_json, unit="records read") as show:
        for shard in shards:

            def settled(progress: Progressing, shard: str = shard) -> None:
                done[shard] = progress
                show(**_reach(shard, done))

            try:
                done[shard] = replay.shard(shard, stretch, settled)
            except KeyboardInterrupt:
                code, why = INTERRUPTED, "interrupted"
                break
            except HoldsError as error:
                code, why = UNFINISHED, f"{error} (`sluice status {stack.option}` shows why)"
                break
    records = sum(progress.records for progress in done.values())
    passed_over = sum((progress.passed_over for progress in done.values()), Counter[str]())
    rows = sum(progress.rows for progress in done.values())
    replayed = Replayed() if planned is None else planned.replayed(rows)
    left = []
    if code:
        left = _commands(stack, shards, stretch, done) if then is None else _commands(stack, shards, then, {})
    elif then is not None:
        return code
    if as_json:
        screen.show_json(
            {
                "complete": not code,
                "records": records,
                "shards": {shard: progress.records for shard, progress in done.items()},
                "rows": asdict(replayed),
                "tag": None if stretch.forced is None else stretch.forced.tag,
                "passed_over": dict(passed_over),
                "stopped": why,
                "go_on": left,
            }
        )
        return code
    if not code:
        kept = (
            f", {replayed.kept:,} not delivered (`sluice status {stack.option}` shows why)"
            if replayed.kept
            else ""
        )
        screen.say(
            f"Done: {screen.plural(records, 'record')} read. {screen.plural(replayed.sent, 'row')} sent, "
            f"{replayed.passed_over:,} skipped{kept}."
        )
        _say_passed_over(passed_over)
        return code
    sent = "" if planned is None else f", {screen.plural(replayed.sent, 'row')} sent"
    click.echo(
        f"{why}; {screen.plural(records, 'record')} done{sent}. To continue:",
        err=True,
    )
    for line in left:
        click.echo(f"  {line}", err=True)
    return code


def _say_passed_over(passed_over: Counter[str]) -> None:
    for place, rows in sorted(passed_over.items()):
        said = screen.plural(rows, "row")
        screen.say(
            f"Not sent: {said} of {place}, because rows planned with them are dead letters, dropped or missing."
        )


def _commands(stack: Stack, shards: list[str], stretch: Stretch, done: dict[str, Progressing]) -> list[str]:
    """Return the commands that replay the rest, shard by shard."""
    lines = []
    for shard in shards:
        progress = done.get(shard)
        ended = progress is not None and not progress.next and shard != list(done)[-1]
        if ended:
            continue
        start = (
            RangeEnd(number=int(progress.next)) if progress is not None and progress.next else stretch.start
        )
        words = ["sluice", "replay", *stack.option.split(), "--shard", shard]
        words += [*_option("--from", start), *_option("--to", stretch.end)]
        if stretch.forced is not None:
            words += ["--force", "--tag", stretch.forced.tag]
            words += ["--account", stretch.forced.account] if stretch.forced.account else []
            words += ["--table", stretch.forced.table] if stretch.forced.table else []
        lines.append(shlex.join(words))
    return lines


def _option(name: str, border: RangeEnd) -> list[str]:
    if border.number is None and border.at is None:
        return []
    return [name, _text(border, "")]


def _reach(shard: str, done: dict[str, Progressing]) -> dict[str, Any]:
    """Return a replay's progress, for the progress bar."""
    arrived = done[shard].arrived
    at = f", arrived {screen.utc(int(arrived))}" if arrived else ""
    return {"description": f"{shard}{at}", "completed": sum(one.records for one in done.values())}
