"""`sluice export`: shows what is held of a person, as JSON lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ops import screen
from ops.events.condition import ColumnCondition, column_of
from ops.failure import UNFINISHED
from ops.persons.person_search import (
    UNSEEN,
    Held,
    WantedPersons,
    ask,
    ask_again,
    check_account,
    database_option,
    hours_of,
    look,
    make_key,
)
from ops.stack import Stack, works_on_stack
from shared import json_codec
from shared.errors import InvalidObjectError
from shared.person_hash import hasher
from worker.forget.person import Matcher, Person, Persons
from worker.forget.sql import SHARED
from worker.rejected_events import PREFIX, events
from worker.rows import decompress
from worker.span import Place

_END = 1 << 62


@click.command("export")
@works_on_stack
@click.argument("person", metavar="COLUMN=VALUE", type=ColumnCondition())
@click.option("--account", required=True, help="The account whose rows are searched.")
@database_option
@screen.output_option
def command(
    stack: Stack, *, person: tuple[str, str], account: str, databases: tuple[str, ...], file: Path | None
) -> None:
    """Show what is held of a person: the rows in which a column has a value, as JSON lines with where each was.

    Rows in Treasure Data, in span objects, rejected events and the overflow queue are searched. Nothing is changed.
    """
    column, value = person
    wanted = WantedPersons(account, column_of(column), (value,), databases)
    make_key(stack)
    (held,) = look(stack, [wanted], hours_of(stack), shows=True)
    check_account(stack, account, [held])
    unread = [UNSEEN] if held.unseen else []
    lines = [json.dumps(one, ensure_ascii=False, default=repr) for one in _found(stack, wanted, held, unread)]
    screen.put(
        json_codec.without_surrogates("".join(f"{line}\n" for line in lines)),
        file,
        f"{screen.plural(len(lines), 'line')} written to {file}.",
    )
    if not (lines or unread or held.unread):
        screen.note(
            f"Nothing was found with this {column}. A mistyped column finds nothing, too: check its name."
        )
    for problem in unread:
        screen.note(problem)
    raise click.exceptions.Exit(UNFINISHED if unread or held.unread else 0)


def _found(stack: Stack, wanted: WantedPersons, held: Held, unread: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what is held, and where; note what could not be read."""
    texts = ask(stack, "texts", **wanted.members)["texts"]
    yield from _in_td(stack, wanted, held, unread)
    hash_of = hasher(b"", wanted.account, wanted.column)
    hashes = tuple(hash_of(text.encode()) for text in texts)
    person = Person("1", wanted.account, wanted.column, hashes, _END)
    matcher = Persons(b"", (person,)).of(wanted.account)
    if matcher is not None:
        yield from _in_spans(stack, wanted, held, matcher, unread)
        yield from _in_rejected(stack, wanted, matcher)
    for event in held.waiting:
        yield {"where": "overflow queue", "table": event.seen.table, "row": dict(event.seen.row)}


def _in_td(stack: Stack, wanted: WantedPersons, held: Held, unread: list[str]) -> Iterator[dict[str, Any]]:
    for (database, table), number in held.in_td.items():
        if table == "*":
            unread.append(f"Treasure Data does not list the tables of {database}. {ask_again(stack)}")
            continue
        columns = held.columns[database, table]
        place = {"database": database, "table": table, "named": database in wanted.databases}
        answer = ask(stack, "select", columns=columns, **place, **wanted.members)
        if answer["end"] == SHARED:
            unread.append(
                f"Other accounts may have rows in {database}.{table}. All with the value: {answer['statement']}"
            )
        elif answer["end"] != "success" or number is None:
            unread.append(
                f"The rows of {database}.{table} cannot be shown here now. In Treasure Data: {answer['statement']}"
            )
        for row in answer["rows"]:
            known = {name: value for name, value in row.items() if value is not None}
            yield {"where": "Treasure Data", "database": database, "table": table, "row": known}


def _in_spans(
    stack: Stack, wanted: WantedPersons, held: Held, matcher: Matcher, unread: list[str]
) -> Iterator[dict[str, Any]]:
    ledger, objects = stack.ledger(), stack.objects()
    for place in held.places:
        span = ledger.get(Place.parse(*place))
        if span is None:
            continue
        try:
            _, bodies = objects.whole(span)
        except InvalidObjectError as error:
            unread.append(f"{span.place.name} cannot be read: {error}")
            continue
        for planned, body in bodies.items():
            leaves = [(leaf, leaf.within(span.chunks[planned])) for leaf in span.leaves(planned)]
            if planned.account != wanted.account:
                continue
            for number, row in matcher.found(decompress(body), planned.group):
                leaf = next((leaf for leaf, own in leaves if number in own), planned)
                yield {
                    "where": "S3",
                    "span": span.place.name,
                    "chunk": leaf.name,
                    "state": span.entry(leaf).state.value,
                    "table": planned.group.label,
                    "row": row,
                }


def _in_rejected(stack: Stack, wanted: WantedPersons, matcher: Matcher) -> Iterator[dict[str, Any]]:
    bucket = stack.bucket()
    for name in bucket.names(f"{PREFIX}{wanted.account}/"):
        data = bucket.get(name)
        for event in events(decompress(data)) if data is not None else ():
            if matcher.request_of_event(event.original):
                yield {
                    "where": "rejected events",
                    "object": name,
                    "received": screen.utc(event.received_at / 1000),
                    "event": json_codec.parse(event.original),
                }
