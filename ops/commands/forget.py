"""`sluice forget`: forgets persons in Treasure Data, in S3 and in whatever arrives late, and shows what became of requests."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import click

from ops import screen
from ops.cost.prices import DEFAULT_REGION, REGIONS, US_EAST_1
from ops.events.condition import ColumnCondition, column_of
from ops.failure import UNFINISHED, Failure
from ops.persons.person_search import (
    FAILED_ENDS,
    UNSEEN,
    Held,
    Hours,
    WantedPersons,
    ask,
    ask_again,
    check_account,
    count_in_td,
    database_option,
    hours_of,
    in_objects,
    look,
    lost_tables,
    make_key,
    receipts,
)
from ops.stack import Stack, works_on_stack
from worker.forget.sql import SHARED
from worker.span_object import PREFIX as SPANS

_WHO = (
    "Somebody must run this in Treasure Data, whose key may query and change the table: "
    "an administrator, or a user with full access to the database."
)
_WHOSE = (
    "Other accounts may have rows in this database. Those are deleted that S3 shows to be the account's; "
    "to delete all with the value, repeat the command with --database {}, or run this in Treasure Data:"
)
_GIGABYTES, _SECONDS_AN_OBJECT = 0.5, 0.02  # of the function


@click.command("forget")
@works_on_stack
@click.argument("person", metavar="[COLUMN=VALUE]", type=ColumnCondition(), required=False)
@click.option("--account", help="The account whose rows are searched.")
@database_option
@click.option(
    "--from",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Forget many: a file with COLUMN=VALUE on each line.",
)
@click.option("--refuse", is_flag=True, help="Refuse new events in which the column has the value, too.")
@click.option("--list", "lists", is_flag=True, help="Show the requests and what became of them.")
@click.option(
    "--lift", "lifted", metavar="ID", multiple=True, help="Accept new events again, given a request's id."
)
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def command(
    stack: Stack,
    *,
    person: tuple[str, str] | None,
    account: str | None,
    databases: tuple[str, ...],
    file: Path | None,
    refuse: bool,
    lists: bool,
    lifted: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Forget a person: delete the rows in which a column has a value, wherever they are, after a confirmation.

    What was received until now is forgotten: in Treasure Data, in S3, and later what is still on its way. Rows that arrive from now on
    are kept, unless you --refuse them. A receipt, which --list shows again, says what was deleted where, and what waits until when.
    """
    if lists:
        raise click.exceptions.Exit(_list(stack, as_json=as_json))
    if lifted:
        _lift(stack, lifted, as_json=as_json)
        return
    wanted = [replace(one, databases=databases) for one in _wanted(account, person, file)]
    make_key(stack)
    hours = hours_of(stack)
    if not as_json:
        screen.say(_cost(stack, hours))
    found = look(stack, wanted, hours, shows=not as_json)
    check_account(stack, wanted[0].account, found)
    if not as_json:
        _show(zip(wanted, found, strict=True))
    if dry_run:
        if as_json:
            screen.show_json([_held(one) for one in found])
        else:
            screen.say(screen.DRY_RUN)
        raise click.exceptions.Exit(_unread(stack, found))
    total = sum(held.total for held in found)
    people = screen.plural(sum(len(one.values) for one in wanted), "person", "persons")
    refusing = ", and refuse new events" if refuse else ""
    question = f"Forget {people} and {screen.plural(total, 'row')} for ever{refusing}?"
    screen.confirm(f"{_of_earlier_accounts(found)}{question}", yes=yes)
    left: dict[str, int] = {}
    for one, held in zip(wanted, found, strict=True):
        left |= _forget(stack, one, held, hours, refuse=refuse, as_json=as_json)
    # a request itself knows only what searches that follow leave
    made = [one | {"left": left[one["id"]]} for one in receipts(stack) if one["id"] in left]
    _print(stack, made, as_json=as_json)
    raise click.exceptions.Exit(_code(made))


def _wanted(account: str | None, person: tuple[str, str] | None, file: Path | None) -> list[WantedPersons]:
    """Return what to look for: all values of a column in one search."""
    if account is None:
        raise click.UsageError("name the account: --account NAME")
    if (person is None) == (file is None):
        raise click.UsageError("name a person with COLUMN=VALUE, or many with --from FILE")
    columns: dict[str, dict[str, None]] = {}
    for column, value in [person] if person is not None else _read(file):
        if not value:
            raise Failure(f"no value for {column}: the rows in which it is empty may be of anybody")
        columns.setdefault(column_of(column), {})[value] = None
    if not columns:
        raise Failure("the file names nobody: write COLUMN=VALUE on each line")
    return [WantedPersons(account, column, tuple(values)) for column, values in columns.items()]


def _read(file: Path | None) -> list[tuple[str, str]]:
    """Return the names and values in a file. A value may have separators of lines other than a newline."""
    try:
        # editors on Windows begin a file with a mark
        text = file.read_text("utf-8-sig", newline="") if file is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} cannot be read as UTF-8: {error}") from error
    condition = ColumnCondition()
    found: list[tuple[str, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        column, value = condition.convert(line.removesuffix("\r"), None, None)
        if value != value.strip() or "\r" in value:
            raise Failure(
                f"line {number} of {file} has white space before or after the value, or a carriage return in it: end each line with a "
                "newline only, or if the person's value has it, name the person on the command line, in quotes"
            )
        found.append((column, value))
    return found


def _cost(stack: Stack, hours: Hours) -> str:
    """Return what a search costs."""
    objects, size = sum(number for _, number, _ in hours), sum(bytes_ for *_, bytes_ in hours)
    prices = REGIONS.get(stack.session.region_name or DEFAULT_REGION, US_EAST_1)
    runs = prices["lambda_arm"] * _GIGABYTES * _SECONDS_AN_OBJECT
    an_object = prices["s3_gets"] / 1e3 + prices["reads"] / 1e6 + runs
    return (
        f"Searching {screen.plural(objects, 'span object')} ({screen.short(size)}B): about ${objects * an_object:.2f} in AWS. "
        "Treasure Data scans the tables that have the column."
    )


def _show(found: Iterable[tuple[WantedPersons, Held]]) -> None:
    rows: list[tuple[object, ...]] = []
    for wanted, held in found:
        counts: dict[str, int | None] = {
            **{_label(held, *place): one for place, one in held.totals.items()},
            **{f"S3, {state}": number for state, number in sorted(held.rows.items())},
            "S3, rejected events": held.rejected,
            "overflow queue, forgotten later": held.queued,
            "overflow queue, messages that SQS does not show now": held.unseen,
            "S3, objects that cannot be read now": held.unread,
        }
        shown = ((where, "unknown" if one is None else one) for where, one in counts.items() if one != 0)
        rows += [(wanted.column, *one) for one in shown]
    screen.show_table(("column", "where", "rows"), rows)
    if not rows:
        screen.say("Nothing was found.")


def _of_earlier_accounts(found: Iterable[Held]) -> str:
    """Return what to know before rows are deleted by a value: nobody remembers which accounts had a database."""
    named = sorted({database for held in found for database, _ in held.in_td if database not in held.shared})
    said = f"In {', '.join(named)}, all rows with the value go, also of an account that had the database before.\n"
    return said if named else ""


def _label(held: Held, database: str, table: str) -> str:
    whose = ", perhaps of other accounts" if database in held.shared else ""
    return f"Treasure Data, {database}.{table}{whose}"


def _unread(stack: Stack, found: list[Held]) -> int:
    """Say what to do if not everything could be read; return the exit code."""
    unasked = [None in held.in_td.values() for held in found]
    if any(unasked):
        screen.note(f"Treasure Data does not say how many rows it has. {ask_again(stack)}")
    unseen = any(held.unseen for held in found)
    if unseen:
        screen.note(UNSEEN)
    return UNFINISHED if any(unasked) or unseen or any(held.unread for held in found) else 0


def _held(held: Held) -> dict[str, Any]:
    in_td = [
        {"database": database, "table": table, "rows": number}
        for (database, table), number in held.totals.items()
    ]
    counts = {name: getattr(held, name) for name in ("rejected", "queued", "unseen", "objects", "unread")}
    return {"treasure_data": in_td, "rows": dict(held.rows), **counts}


def _forget(
    stack: Stack, wanted: WantedPersons, held: Held, hours: Hours, *, refuse: bool, as_json: bool
) -> dict[str, int]:
    """Forget persons; return for each request, by its id, how many rows in S3 wait for a later search."""
    noted = ask(stack, "note", refuse=refuse, **wanted.members)["requests"]
    ids, before = [one["id"] for one in noted], min(one["before"] for one in noted)
    of = dict(zip(wanted.values, ids, strict=True))
    # before anything is deleted: whatever happens next, the next count shows what is gone
    found = {place: held.in_td.get(place, Counter()) for place in held.columns}
    ask(stack, "counted", requests=ids, counts=_of_requests(of, found), clear=False)
    left_in_td, is_clear = _delete_in_td(stack, wanted, held, before)
    lost = lost_tables(stack, wanted, held, ids)
    gone = [".".join(place) for place, is_gone in lost.items() if is_gone]
    is_clear = is_clear and all(is_gone or place[0] in held.shared for place, is_gone in lost.items())
    ask(stack, "counted", requests=ids, counts=_of_requests(of, left_in_td), gone=gone, clear=is_clear)
    since = time.strftime("%Y-%m-%dT%H", time.gmtime(before / 1000 - 3600))
    recent = {f"{SPANS}{hour}/" for hour, *_ in hours if hour >= since}
    with screen.progress("forgetting", hidden=as_json, unit="folders") as show:
        done, left = count(1), Counter[str]()

        def note(_: str, answer: dict[str, Any]) -> None:
            left.update(answer["left"])
            show(description="forgetting", completed=next(done))

        in_objects(stack, "forget", [*sorted(held.folders | recent), wanted.rejected], {}, note)
    return {one: left[one] for one in ids}


def _of_requests(
    of: Mapping[str, str], counts: Mapping[tuple[str, str], Counter[str] | None]
) -> dict[str, dict[str, int]]:
    """Return known numbers of rows by table and request, but for zeros, given the request of each value."""
    return {
        ".".join(place): {request: known[value] for value, request in of.items() if known[value]}
        for place, known in counts.items()
        if known is not None
    }


def _delete_in_td(
    stack: Stack, wanted: WantedPersons, held: Held, before: int
) -> tuple[dict[tuple[str, str], Counter[str] | None], bool]:
    """Delete rows in Treasure Data; return how many are left by table, None if unknown, and whether none are left for certain."""
    gone: dict[tuple[str, str], Counter[str]] = {}
    for database, table in held.in_td.keys() & held.columns.keys():
        ends = set()
        for part in wanted.parts:
            named = database in wanted.databases
            place = {"database": database, "table": table, "named": named}
            answer = ask(stack, "delete", before=before, **place, **part.members)
            ends.add(answer["end"])
            if answer["end"] == SHARED:
                screen.note(f"{_WHOSE.format(database)}\n  {answer['statement']}")
            if answer["end"] in FAILED_ENDS:
                screen.note(f"{_WHO}\n  {answer['statement']}")
        if ends == {"success"}:
            gone[database, table] = Counter()
    counted = count_in_td(stack, wanted, held.columns, before)
    left = {place: counted.get(place, Counter()) for place in held.columns} | gone
    # what is left in a shared database may be of others
    own = {place for place in held.in_td if place[0] not in held.shared or place[1] == "*"}
    not_gone = {place for place, one in counted.items() if one is None or place[0] not in held.shared}
    return left, not not_gone and own <= gone.keys()


def _list(stack: Stack, *, as_json: bool) -> int:
    made = sorted(receipts(stack), key=lambda one: one["before"])
    if not made and not as_json:
        screen.say("Nobody was forgotten.")
    _print(stack, made, as_json=as_json)
    return _code(made)


def _code(made: Iterable[Mapping[str, Any]]) -> int:
    """Return the exit code: whether a receipt says what is to do."""
    to_do = any(
        not one["cleared"] or (not one["done"] and (one["statements"] or one["remaining"])) for one in made
    )
    return UNFINISHED if to_do else 0


def _print(stack: Stack, made: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        screen.show_json(made)
    for receipt in () if as_json else made:
        screen.say(_receipt(stack, receipt))


def _lift(stack: Stack, ids: tuple[str, ...], *, as_json: bool) -> None:
    """Accept new events of persons again."""
    lifted = ask(stack, "lift", ids=ids)["requests"]
    if unknown := set(ids) - {one["id"] for one in lifted}:
        raise Failure(
            f"No request is named {', '.join(sorted(unknown))}. `sluice forget {stack.option} --list` shows them."
        )
    if as_json:
        screen.show_json([one for one in receipts(stack) if one["id"] in ids])
    else:
        screen.say("The endpoint accepts events of these persons again, in a minute.")


def _receipt(stack: Stack, receipt: dict[str, Any]) -> str:
    """Return what became of a request, as lines."""
    lines = [
        f"{receipt['id']}  {receipt['account']}, by {receipt['column']}, received until {screen.utc(receipt['before'] / 1000)}"
    ]
    for table, number in sorted(receipt["treasure_data"].items()):
        lines.append(f"  deleted    {screen.plural(number, 'row')} in Treasure Data, {table}")
    for state, number in sorted(receipt["forgotten"].items()):
        lines.append(f"  deleted    {screen.plural(number, 'row')} in S3, {state}")
    if receipt["refuses"]:
        lines.append(f"  refused    new events, until `sluice forget {stack.option} --lift {receipt['id']}`")
    if receipt["cleared"]:
        remaining = sorted(receipt["remaining"].items())
        for table, number in remaining:
            rows = screen.plural(number, "row")
            lines.append(f"  remains    {rows} in Treasure Data, {table}, perhaps of other accounts")
        counted = "0 other rows" if remaining else "0 rows"
        lines.append(f"  checked    a query counted {counted} in Treasure Data at {_at(receipt['cleared'])}")
    else:
        lines.append("  to do      Treasure Data may still have rows: run the same command again")
    lines += [f"  to do      {statement}" for statement in receipt["statements"]]
    following = _at(receipt["next"])
    if receipt["left"]:
        lines.append(
            f"  waits      {screen.plural(receipt['left'], 'row')} in S3 until the search at {following}"
        )
    if receipt["done"]:
        lines.append(f"  done       the last search, at {_at(receipt['done'])}, found nothing more")
    else:
        last = _at(receipt["until"])
        lines.append(f"  waits      the next search is at {following}, the last after {last}")
    return "\n".join(lines)


def _at(seconds: float) -> str:
    return screen.utc(int(seconds))
