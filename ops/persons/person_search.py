"""Finds what a stack and its accounts' tables hold of persons, through the sender's function, which has the key to recognise them."""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import batched
from typing import Any

import click

from ops import screen
from ops.background import in_order
from ops.events.event_query import EventQuery
from ops.events.finder import Finder
from ops.events.found_event import FoundEvent
from ops.failure import Failure
from ops.signing_secrets import secret_members, signing_of, store_members
from ops.stack import Stack
from shared.clock import SystemClock
from shared.person_hash import text_of
from shared.rows import column_name
from shared.write_key import FORGET_KEY
from worker.forget.person import column_value
from worker.forget.requests import KEY, RequestDocument
from worker.rejected_events import PREFIX as REJECTED
from worker.span import Place
from worker.span_object import PREFIX as SPANS

FUNCTION = "SenderFunction"
SEARCHES_AT_ONCE = 4
"""Invocations of the sender's function in parallel: it may have six, and the schedule needs one."""
FAILED_ENDS = ("failed", "forbidden", "missing")
"""How a job ends that somebody with more rights must run."""
database_option = click.option(
    "--database",
    "databases",
    metavar="NAME",
    multiple=True,
    help="Take all rows with the value in this database for the account's, also if other accounts have it, or the account has it no more.",
)
UNSEEN = "SQS does not show all messages of the overflow queue now: the others may have more rows. Repeat the command in a minute."
"""What to do if messages were not shown."""

_KEY_BYTES = 32
_MOST_VALUES = 2000  # in one statement
_QUEUE_SECONDS = 60.0

Hours = Sequence[tuple[str, int, int]]
"""The hours of span objects, each with the number of objects and their bytes."""


@dataclass(frozen=True, slots=True)
class WantedPersons:
    """Persons: an account, the column that identifies them, and its values.

    Attributes:
        databases: in which all rows with the values are meant, and which are searched although the account has others.
    """

    account: str
    column: str
    values: tuple[str, ...]
    databases: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, Any]:
        """The members of a request to the function."""
        return {"account": self.account, "column": self.column, "values": list(self.values)}

    @property
    def rejected(self) -> str:
        """The folder of the account's rejected events."""
        return f"{REJECTED}{self.account}/"

    @property
    def parts(self) -> "list[WantedPersons]":
        """The same persons, as many at a time as a statement may name."""
        return [replace(self, values=part) for part in batched(self.values, _MOST_VALUES, strict=False)]


@dataclass(slots=True)
class Held:
    """What is held of persons.

    Attributes:
        rows: numbers of rows in span objects, by state.
        waiting: events in the overflow queue.
        unseen: number of messages of the overflow queue that SQS did not show, about.
        in_td: numbers of rows in Treasure Data by database and table, for each value; None where it cannot be asked.
        columns: of those tables.
        shared: those of the databases in which rows with the values may be other accounts'.
        folders: of the span objects that have rows.
        places: the spans that have rows.
        listed: the databases whose tables Treasure Data lists.
        is_of_nobody: nothing was found, and Redis says that there is no such account.
    """

    rows: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    waiting: list[FoundEvent] = field(default_factory=list)
    unseen: int = 0
    in_td: dict[tuple[str, str], Counter[str] | None] = field(default_factory=dict)
    columns: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    objects: int = 0
    unread: int = 0
    folders: set[str] = field(default_factory=set)
    places: list[tuple[str, str]] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)
    is_of_nobody: bool = False

    @property
    def queued(self) -> int:
        """The number of events in the overflow queue."""
        return len(self.waiting)

    @property
    def totals(self) -> dict[tuple[str, str], int | None]:
        """The numbers of rows in Treasure Data by database and table; None where it cannot be asked."""
        return {place: one if one is None else one.total() for place, one in sorted(self.in_td.items())}

    @property
    def total(self) -> int:
        """The number of rows and events, as far as they could be counted."""
        return self.rows.total() + self.rejected + self.queued + sum(one or 0 for one in self.totals.values())


def ask_again(stack: Stack) -> str:
    """Return what to do if Treasure Data does not answer."""
    return f"It may be down, or its API key may not read them: `sluice doctor {stack.option}` checks both. Then repeat the command."


def make_key(stack: Stack) -> None:
    """Make the key by which persons are recognised, if the stack has none yet.

    Raises:
        Failure: the stack's secret is damaged: it has no signing secret, or has lost the key. It stays as it is.
    """
    members = secret_members(stack)
    signing_of(members)
    if FORGET_KEY not in members:
        if any(one["refuses"] or not one["done"] for one in receipts(stack)):
            raise Failure(
                f"the secret WriteKeySecret has lost its member {FORGET_KEY}, and with another one, nobody is recognised for whom a request was "
                "made before: add it again from the version that had it, `aws secretsmanager get-secret-value --version-stage AWSPREVIOUS`"
            )
        store_members(stack, members | {FORGET_KEY: secrets.token_urlsafe(_KEY_BYTES)})


def ask(stack: Stack, do: str, **members: Any) -> dict[str, Any]:
    """Ask the function to do something for persons.

    Raises:
        Failure: it cannot.
    """
    answer = stack.invoke(FUNCTION, {"forget": {"do": do, **members}})
    if "error" in answer:
        raise Failure(answer["message"])
    return answer


def receipts(stack: Stack) -> list[dict[str, Any]]:
    """Return what became of all requests."""
    data = stack.bucket().get(KEY)
    document = RequestDocument() if data is None else RequestDocument.decode(data)
    return [one.receipt() for one in document.requests.values()]


def hours_of(stack: Stack) -> Hours:
    """Return the hours of span objects."""
    sizes: dict[str, list[int]] = {}
    for stored in stack.objects().listed():
        sizes.setdefault(stored.hour, []).append(stored.size)
    return [(hour, len(some), sum(some)) for hour, some in sizes.items()]


def in_objects(
    stack: Stack,
    do: str,
    folders: Iterable[str],
    members: Mapping[str, Any],
    each: Callable[[str, dict[str, Any]], None],
) -> None:
    """Search the objects in folders in parallel, and pass each answer on, with its folder."""

    def search(folder: str) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        after = ""
        while not answers or after:
            answers.append(ask(stack, do, prefix=folder, after=after, **members))
            after = answers[-1]["after"]
        return answers

    for folder, answers in in_order(lambda one: (one, search(one)), folders, SEARCHES_AT_ONCE):
        for answer in answers:
            each(folder, answer)


def look(stack: Stack, wanted: Sequence[WantedPersons], hours: Hours, *, shows: bool) -> list[Held]:
    """Find persons of an account everywhere, and change nothing; show how far that has come.

    Raises:
        Failure: a database that was named has no table with such a column.
    """
    # once for all: SQS hides for seconds what it has shown
    found = _in_queue(stack, wanted)
    for one, held in zip(wanted, found, strict=True):
        _look(stack, one, hours, held, shows=shows)
    for database in wanted[0].databases:
        if not any(database == place[0] for held in found for place in held.columns.keys() | held.in_td):
            raise Failure(f"no table in the database {database} has such a column: check both names")
    return found


def _look(stack: Stack, wanted: WantedPersons, hours: Hours, held: Held, *, shows: bool) -> None:
    """Find persons everywhere but in the overflow queue."""

    def add(folder: str, answer: dict[str, Any]) -> None:
        held.objects += answer["objects"]
        held.unread += answer["left"].get("", 0)
        held.rejected += answer["rows"].pop("rejected", 0)
        held.rows.update(answer["rows"])
        held.folders |= {folder} if answer["rows"] else set()
        held.places += [(chain, after) for chain, after in answer["places"]]
        show(description="searching", completed=held.objects)

    with screen.progress("searching", hidden=not shows, unit="objects") as show:
        folders = [f"{SPANS}{hour}/" for hour, *_ in hours]
        in_objects(stack, "look", [*folders, wanted.rejected], wanted.members, add)
    databases = sorted({*_databases(stack, held.places, wanted.account), *wanted.databases})
    answer = ask(stack, "tables", databases=databases, **wanted.members)
    for database, found in answer["tables"].items():
        if found is None:
            held.in_td[database, "*"] = None
            continue
        held.listed.add(database)
        for table, columns in found.items():
            held.columns[database, table] = columns
    held.shared = set(answer.get("shared", ())) - set(wanted.databases)
    held.in_td |= count_in_td(stack, wanted, held.columns)
    held.is_of_nobody = answer["is_unknown"] and not (held.total or held.in_td or held.unread)


def check_account(stack: Stack, account: str, found: Iterable[Held]) -> None:
    """Check that an account exists, or that some of its rows were found; else its name may be mistyped.

    Raises:
        Failure: neither is so.
    """
    if all(held.is_of_nobody for held in found):
        raise Failure(
            f"there is no account {account}, and no such rows of it were found: `sluice accounts list {stack.option}` lists the accounts. "
            "One that was removed must be applied again, because only Redis knows its database"
        )


def _in_queue(stack: Stack, wanted: Sequence[WantedPersons]) -> list[Held]:
    """Find persons of an account in the overflow queue, which stays as it is."""
    found = [Held() for _ in wanted]
    texts = [frozenset(ask(stack, "texts", **one.members)["texts"]) for one in wanted]
    everything = EventQuery(wanted[0].account)
    finder = Finder(stack, everything, since=0, seconds=_QUEUE_SECONDS, clock=SystemClock())
    for event in finder.queued():
        # a rejected event has the names that its sender wrote, several of which may become one column's
        members = [
            (column_name(str(name)), text_of(column_value(value)).decode())
            for name, value in event.seen.row.items()
            if value is not None
        ]
        for one, held, known in zip(wanted, found, texts, strict=True):
            if any(column == one.column and text in known for column, text in members):
                held.waiting.append(event)
    for held in found:
        held.unseen = max(finder.searched.hidden, int(not finder.searched.is_complete))
    return found


def count_in_td(
    stack: Stack, wanted: WantedPersons, tables: Iterable[tuple[str, str]], before: int | None = None
) -> dict[tuple[str, str], Counter[str] | None]:
    """Return the number of rows of each person in tables of Treasure Data that have any; None where it cannot be asked."""
    limit = {} if before is None else {"before": before}
    found: dict[tuple[str, str], Counter[str] | None] = {}
    for database, table in tables:
        parts = [
            ask(stack, "count", database=database, table=table, **limit, **part.members)["counts"]
            for part in wanted.parts
        ]
        counts = None if None in parts else Counter({value: n for part in parts for value, n in part.items()})
        if counts is None or counts:
            found[database, table] = counts
    return found


def lost_tables(
    stack: Stack, wanted: WantedPersons, held: Held, requests: Collection[str]
) -> dict[tuple[str, str], bool]:
    """Return the tables in which an earlier run counted rows of requests, and whose column Treasure Data does not list any more.

    With each goes whether Treasure Data says that it is gone: somebody has dropped or renamed it. Otherwise it may have the rows still.
    """
    counted = {table for one in receipts(stack) if one["id"] in requests for table in one["remaining"]}
    lost: dict[tuple[str, str], bool] = {}
    for database, table in (name.split(".") for name in sorted(counted)):
        if database in held.listed and (database, table) not in held.columns:
            answer = ask(stack, "count", database=database, table=table, **wanted.parts[0].members)
            lost[database, table] = answer.get("is_gone", False)
    return lost


def _databases(stack: Stack, places: Iterable[tuple[str, str]], account: str) -> Iterator[str]:
    """Yield the databases that rows of an account in these spans went to."""
    ledger = stack.ledger()
    for chain, after in places:
        span = ledger.get(Place.parse(chain, after))
        for key in span.chunks if span is not None else ():
            if span is not None and key.account == account and (database := span.database(key)):
                yield database
