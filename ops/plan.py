"""`sluice plan`: makes tracking plans from the events that arrive, and compares plans with events."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from ops import accounts_file, screen
from ops.accounts import known, one
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.moment import MOMENT
from ops.plan_profile import Drifts, Profile
from ops.plan_text import declarations, inferred
from ops.stack import Stack, works_on_stack
from ops.stream import Border, StreamReader
from ops.tail import Kind, events_of, unpacked
from shared import rows
from shared.clock import SystemClock
from shared.rows import Arrival
from worker.record import decode, number
from worker.shards import Shards

DRIFTS = 3
"""Exit code: events differ from their plan."""


class Arrived(NamedTuple):
    """An event that arrived, as the row that it became or, if it was rejected, would have become.

    Attributes:
        account: its account.
        table: its table.
        row: values by column.
        at: when the ingest received it, UNIX seconds.
    """

    account: str
    table: str
    row: Mapping[str, Any]
    at: float


def since_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select events."""
    command = click.option(
        "--archive", is_flag=True, help="Read the archive, which goes beyond the stream's retention."
    )(command)
    return click.option(
        "--since", type=MOMENT, help="Begin at this time, such as 3d ago. Default: at the oldest event."
    )(command)


@click.group("plan", cls=CommandGroup)
def group() -> None:
    """Make tracking plans from the events that arrive, and compare plans with events."""


@group.command()
@click.argument("account")
@works_on_stack
@since_option
@screen.output_option
def infer(stack: Stack, account: str, *, since: float | None, archive: bool, file: Path | None) -> None:
    """Write a plan that fits the events of ACCOUNT, with frequencies and examples as comments.

    Examples never show possible personal data. Review the plan, correct it, and name it in accounts.yaml.
    """
    profile = Profile()
    for event in _events(stack, since, archive=archive):
        if event.account == account:
            profile.add(event.table, event.row)
    if not profile.tables:
        raise Failure(f"no events of {account} were found: use an earlier --since, or --archive")
    said = f"{screen.plural(len(profile.tables), 'table')} of {account} in {file}."
    screen.put(inferred(profile), file, said)


@group.command()
@click.argument("file", type=click.Path(path_type=Path))
@works_on_stack
@click.option("--account", help="Account whose events to compare. Required unless --events names a file.")
@click.option(
    "--events",
    "recorded",
    type=click.Path(path_type=Path),
    help="Compare the events in this file, written by `sluice record`.",
)
@since_option
@screen.json_option
def check(
    stack: Stack,
    file: Path,
    *,
    account: str | None,
    recorded: Path | None,
    since: float | None,
    archive: bool,
    as_json: bool,
) -> None:
    """Compare events with the plan in FILE, before you apply it. Exit code 3: some differ."""
    drifts = Drifts(accounts_file.read_plan(file))
    if recorded is None and account is None:
        raise Failure("select events: --account, or --events with a file that `sluice record` wrote")
    events = _events(stack, since, archive=archive) if recorded is None else saved_events(recorded)
    for event in events:
        if account in (None, event.account):
            drifts.add(event.table, event.row, event.at)
    if as_json:
        screen.show_json(as_value(drifts))
    else:
        counts = sorted(drifts.codes().items())
        screen.show_table(
            ("table", "code", "events"), [(table, code, count) for (table, code), count in counts]
        )
        screen.say(drifts.summary())
    _exit(drifts)


@group.command()
@click.argument("account")
@works_on_stack
@since_option
@screen.json_option
def diff(stack: Stack, account: str, *, since: float | None, archive: bool, as_json: bool) -> None:
    """Show how events of ACCOUNT differ from its plan: what, since when, how often, and from which pages.

    Exit code 3: some differ.
    """
    plan = one(stack, account).plan
    if plan is None:
        raise Failure(
            f"{account} has no tracking plan: write one with `sluice plan infer {account}`, name it in accounts.yaml, and run "
            "`sluice accounts apply accounts.yaml`"
        )
    drifts = Drifts(plan)
    for event in _events(stack, since, archive=archive):
        if event.account == account:
            drifts.add(event.table, event.row, event.at)
    if as_json:
        screen.show_json(as_value(drifts))
    else:
        show(drifts)
    _exit(drifts)


@group.command()
@click.argument("plan", metavar="FILE", type=click.Path(path_type=Path))
@screen.output_option
def types(plan: Path, *, file: Path | None) -> None:
    """Write TypeScript declarations for the plan in FILE, so that the compiler checks what pages pass to `track`."""
    screen.put(declarations(accounts_file.read_plan(plan)), file, f"Written: {file}.")


@group.command("list")
@works_on_stack
@screen.json_option
def list_(stack: Stack, *, as_json: bool) -> None:
    """List the applied tracking plans."""
    plans = {name: account.plan for name, account in known(stack)[0].items() if account.plan}
    if as_json:
        screen.show_json({name: plan.to_value() for name, plan in plans.items()})
        return
    if not plans:
        screen.say("No account has a tracking plan: write one with `sluice plan infer ACCOUNT`.")
    screen.show_table(
        ("account", "table", "mode", "columns"),
        [
            (name, table, plan.mode_of(table), len(planned.columns))
            for name, plan in plans.items()
            for table, planned in plan.tables.items()
        ],
    )


def show(drifts: Drifts) -> None:
    """Print drifts as a table with a summary."""
    screen.show_table(
        ("table", "column", "differs", "found", "events", "since", "pages"),
        [
            (
                drift.table,
                drift.column,
                drift.code,
                drift.found,
                extent.events,
                screen.utc(int(extent.since)),
                ", ".join(page for page, _ in extent.pages.most_common(3)),
            )
            for drift, extent in drifts.sorted()
        ],
    )
    screen.say(drifts.summary())


def as_value(drifts: Drifts) -> dict[str, Any]:
    """Return drifts as a JSON object."""
    return {
        "events": drifts.events,
        "fitting": drifts.fitting,
        "not_listed": drifts.missing,
        "drifts": [
            {
                **drift._asdict(),
                "events": extent.events,
                "since": screen.utc(int(extent.since)),
                "until": screen.utc(int(extent.until)),
                "pages": dict(extent.pages.most_common(10)),
            }
            for drift, extent in drifts.sorted()
        ],
    }


def rows_of(record: Mapping[str, Any], shard: str) -> Iterator[Arrived]:
    """Yield the events of a record as GetRecords returns it, including the rows that rejected events would have become."""
    arrived_at = record["ApproximateArrivalTimestamp"].timestamp()
    found = decode(record["Data"], shard, number(record["SequenceNumber"]), arrived_at)
    for event in events_of(found, shard):
        if event.kind is Kind.EVENT:
            yield Arrived(event.account, event.table, event.row, event.at)
        elif event.table and (row := _row(event.row, event.at)):
            yield Arrived(event.account, event.table, row, event.at)


def saved_events(file: Path) -> Iterator[Arrived]:
    """Yield the events that `sluice record` saved.

    Raises:
        Failure: the file cannot be read, or is not from `sluice record`.
    """
    try:
        records = json.loads(file.read_text())["Records"]
        for one_of in records:
            kinesis = one_of["kinesis"]
            shard = one_of["eventID"].partition(":")[0]
            arrived_at = kinesis["approximateArrivalTimestamp"]
            data = b64decode(kinesis["data"])
            for event in events_of(decode(data, shard, number(kinesis["sequenceNumber"]), arrived_at), shard):
                if event.kind is Kind.EVENT:
                    yield Arrived(event.account, event.table, event.row, event.at)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{file} was not written by `sluice record`") from error


def stream_events(shards: Shards, since: float | None = None) -> Iterator[Arrived]:
    """Yield the events on the stream that were received at a time or later.

    Raises:
        Failure: the stream does not go back that far.
        ShardUnreadableError: Kinesis does not answer.
    """
    reader, start = StreamReader(shards, SystemClock()), Border(at=since)
    reader.check(start)
    for shard in reader.shards():
        for page in reader.read(shard, start, Border()):
            yield from _rows(page, shard, since)


def _events(stack: Stack, since: float | None, *, archive: bool) -> Iterator[Arrived]:
    """Yield the events received since a time, from the stream or from the archive."""
    if not archive:
        yield from stream_events(stack.shards(), since)
        return
    store = stack.archive()
    for chain in store.chains(stack.outputs["StreamName"]):
        for archived in store.listed(chain, since):
            yield from _rows(store.read(archived) or (), chain.shard, since)


def _rows(records: Iterable[Mapping[str, Any]], shard: str, since: float | None) -> Iterator[Arrived]:
    for record in records:
        for event in rows_of(record, shard):
            if since is None or event.at >= since:
                yield event


def _row(event: Mapping[str, Any], at: float) -> dict[str, Any] | None:
    """Return the row that a rejected event would have become; None if it cannot become one."""
    if not event:
        return None
    try:
        packed = rows.encode(dict(event), Arrival(int(at * 1000)), lambda: "-")
    except rows.Rejected:
        return None
    return next(iter(unpacked(packed)), None)


def _exit(drifts: Drifts) -> None:
    if drifts.fitting < drifts.events:
        raise click.exceptions.Exit(DRIFTS)
