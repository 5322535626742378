"""Runs of a schedule in which persons are forgotten: the real handlers, with whatever trouble the schedule has.

The persons are some of the events, recognised by their number. Requests are made and searches run while everything goes on; when all has
healed, weeks pass, and the searches that follow by themselves end.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import override

from chaos.audit import unpacked
from chaos.functions import Functions
from chaos.pipeline import SWEEP_EVERY, Pipeline
from chaos.run import finished
from chaos.schedule import Schedule
from chaos.verdict import Verdict
from chaos.world import BUCKET, World
from doubles.event_source import Outcome, Returned
from shared.errors import ObjectGoneError
from worker.forget.requests import KEY as REQUESTS
from worker.forget.requests import RequestDocument
from worker.rows import decompress
from worker.states import State

COLUMN = "n"
_SHARE = 0.15  # of the events
_SEARCHES = 4
_DAY = 86_400.0
_ARCHIVE_DAYS = 120
_STEP_DAYS = (3, 12, 3, 3, 10, 10, 10)


class ForgettingPipeline(Pipeline):
    """A pipeline in which some events' persons are forgotten."""

    def __init__(self, world: World, functions: Functions) -> None:
        super().__init__(world, functions)
        choose = random.Random(f"{world.schedule.seed}/forget")
        self.persons: dict[str, set[int]] = {}  # the numbers of their events, by account
        self._failed: set[str] = set()
        for sent in world.schedule.sent:
            for number, _ in sent.events:
                if choose.random() < _SHARE:
                    self.persons.setdefault(sent.account, set()).add(number)
        self.everybody = set[int]().union(*self.persons.values())
        world.is_forgotten = lambda row: int(row["n"]) in self.everybody
        horizon, now = world.schedule.setup.horizon, world.simulation.now
        for since, until in ((0.3, 0.7), (0.7, 1.2)):
            world.simulation.at(now + horizon * choose.uniform(since, until), self._command)
        for _ in range(_SEARCHES):
            world.simulation.at(now + horizon * choose.uniform(0.4, 1.2), self._search)

    def _command(self) -> None:
        """Make requests; then delete by value in all tables, as the command does."""
        self._failed = set(self.persons)
        for account in self.persons:
            self._request(account, partial(self._delete, account), do="note")

    def _delete(self, account: str, outcome: Outcome) -> None:
        if isinstance(outcome, Returned) and "error" not in outcome.value:
            self._failed.discard(account)
            for database in self.world.mapped[account]:
                for table in self.world.td.counts().get(database, ()):
                    self._request(account, lambda _: None, do="delete", database=database, table=table)

    def _request(self, account: str, then: Callable[[Outcome], None], **members: str) -> None:
        values = [str(number) for number in sorted(self.persons[account])]
        asked = {"account": account, "column": COLUMN, "values": values, **members}
        self.sender.invoke({"forget": asked}, then)

    def _search(self) -> None:
        for hour in list(self.audit.objects.hours()):
            self._invoke_sender({"forget": {"do": "forget", "hour": hour, "after": ""}})

    @override
    def _sweep(self) -> None:
        # also after the schedule: searches that follow come with it
        if self._is_sending:
            self._invoke_sender({"sweep": True})
        self.world.simulation.at(self.world.simulation.now + SWEEP_EVERY, self._sweep)

    @override
    def finish(self) -> None:
        """Ask again, whatever became of the first request, and let the searches that follow end."""
        super().finish()
        self._command()
        while self._failed:  # of hundreds that write one document at once, some fail
            self.world.simulation.run(self.world.simulation.now + 1800)
            for account in self._failed:
                self._request(account, partial(self._delete, account), do="note")
        for days in _STEP_DAYS:
            self._pause_sender(self.world.simulation.now + days * _DAY)
            for _ in range(3):  # a search may take several runs
                self._invoke_sender({"sweep": True})
                self.world.simulation.run(self.world.simulation.now + 1800)
        self.missing = [number for number in self.missing if number not in self.everybody]
        self.accepted = {number: at for number, at in self.accepted.items() if number not in self.everybody}

    @property
    @override
    def dropped(self) -> set[int]:
        """Also those whose chunk was cut since."""
        found = super().dropped
        for (place, planned), numbers in self.given_up.items():
            span = self.audit.ledger.get(place)
            leaves = () if span is None or planned in span.chunks else span.all_leaves()
            if any(key.group == planned.group and one.state is State.DROPPED for key, one in leaves):
                found.update(numbers)
        return found

    def remembered(self) -> list[str]:
        """Return where something of a person is left."""
        found = []
        if self.schedule.setup.may_query:
            found += [
                f"{one.database}.{one.table} has {row['n']}"
                for one in self.world.td.imports()
                for row in one.rows
                if int(row["n"]) in self.everybody
            ]
        objects = self.audit.objects
        for span in self.audit.ledger.spans():
            try:
                _, bodies = objects.whole(span)
            except ObjectGoneError:
                continue
            for key, body in bodies.items():
                rows = [] if key.group.code else unpacked(decompress(body))
                theirs = [row["n"] for row in rows if int(row["n"]) in self.everybody]
                found += [f"{span.place.name} {key.name} has {theirs}"] if theirs else []
        return found

    def unfinished(self) -> list[str]:
        """Return the requests that are not done."""
        stored = self.world.bucket.objects(BUCKET).get(REQUESTS)
        document = RequestDocument() if stored is None else RequestDocument.decode(stored.body)
        return [f"{one.account}: {one.left} left" for one in document.requests.values() if not one.done]


def run(schedule: Schedule) -> tuple[ForgettingPipeline, Verdict]:
    """Run a schedule; return its pipeline, and the verdict on everybody who is not forgotten.

    Rows that were swept from S3 stay counted as delivered, so the schedule's objects are kept until the last search.
    """
    schedule = replace(schedule, setup=replace(schedule.setup, archive_days=_ARCHIVE_DAYS))
    pipeline, verdict = finished(schedule, kind=ForgettingPipeline, observed=False)
    # of persons, copies of rejected events are deleted too
    verdict.lost = [number for number in verdict.lost if number not in pipeline.everybody]
    if not schedule.setup.may_query:  # Treasure Data has the persons' rows until somebody runs the statements
        verdict.miscounted = [one for one in verdict.miscounted if "the balance says" not in one]
        verdict.duplicated = [number for number in verdict.duplicated if number not in pipeline.everybody]
    return pipeline, verdict


def forgotten(pipeline: ForgettingPipeline) -> int:
    """Return how many rows the ledger counts as forgotten."""
    return pipeline.audit.balance().total.states[State.FORGOTTEN]
