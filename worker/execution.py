"""Carrying out one span: send what is pending, set aside what must be, settle."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from shared import errors
from shared.clock import Clock
from worker.aside import Aside, AsideUnavailableError, SetAside
from worker.chunk import Chunk, Groups, chunks, origin
from worker.deadline import Deadline
from worker.executor import Executors, all_of
from worker.journal import Journal
from worker.ledger import Ledger
from worker.plan import UNRESOLVED
from worker.record import Record, is_reason, milliseconds, sequence_number
from worker.sender import Upload
from worker.span import Cut, Entry, Kind, Span, State
from worker.upload import Outcome, Uploader

LONGEST_INVOCATION_SECONDS = 15 * 60
"""Lambda's own limit: for so long a send whose time was looked at can still be under way."""

_METRICS = {Kind.PARKED: "RowsParked", Kind.IN_DOUBT: "RowsInDoubt", Kind.DEAD_LETTER: "RowsDeadLettered"}


class HeldError(errors.HeldError):
    """The batch must be delivered again from here; the message says why."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What bounds decisions.

    Attributes:
        cut: limits by which new spans' chunks are cut.
        memory_seconds: how long Treasure Data remembers a unique_id.
        held_at_most: seconds for which rows may be held.
    """

    cut: Cut
    memory_seconds: float
    held_at_most: float

    def is_doubt_old(self, since: int, now: float) -> bool:
        """Tell whether rows first sent at `since`, UNIX milliseconds, may no longer be sent under the same id."""
        return now - since / 1000 > self.memory_seconds - LONGEST_INVOCATION_SECONDS


@dataclass(frozen=True, slots=True)
class Means:
    """What plans are carried out with."""

    ledger: Ledger
    uploader: Uploader
    aside: Aside
    executors: Executors
    rules: Rules
    clock: Clock
    journal: Journal


@dataclass(frozen=True, slots=True)
class Work:
    """A span's records, without those whose envelope counts elsewhere, and their blocks by owner and table."""

    records: Sequence[Record]
    groups: Groups


class Execution:
    """One invocation's work on one span that it has just appended or touched.

    Args:
        means: what it is done with.
        shard: the span's.
        span: as this invocation wrote it.
        work: its rows.
        fresh: keys of chunks whose doubt began with this invocation; None for all.
    """

    def __init__(self, means: Means, shard: str, span: Span, work: Work, fresh: set[str] | None) -> None:
        self._means = means
        self._shard = shard
        self._span = span
        self._work = work
        self._chunks = {chunk.key: chunk for chunk in chunks(work.groups, span)}
        self._fresh = set(self._chunks) if fresh is None else set(fresh)
        self._fenced = False  # someone has written since

    def carry_out(self, deadline: Deadline) -> None:
        """Send, set aside, settle.

        Raises:
            HeldError: chunks are still pending.
            LedgerUnavailableError: the ledger cannot be reached; all that was done will be done again, to no effect.
        """
        began = self._means.clock.now()
        outcomes, uploads = self._sort()
        if uploads:
            with self._means.executors() as executor:
                sent = self._means.uploader.upload(uploads, deadline, executor, self._split)
            outcomes |= {key: self._unless_taken(key, outcome) for key, outcome in sent.items()}
        outcomes |= self._announce(outcomes)
        outcomes |= self._delete_refused(outcomes)
        outcomes |= self._set_aside(outcomes)
        pending = self._settle(outcomes)
        if self._fenced:
            self._delete_overtaken(outcomes)
        self._report(outcomes, began)
        if pending:
            reasons = sorted(
                {outcome.reason for outcome in outcomes.values() if outcome.state is State.PENDING}
            )
            raise HeldError(f"chunks are pending: {', '.join(reasons)}")

    def _sort(self) -> tuple[dict[str, Outcome], list[Upload]]:
        """Return what can be said of chunks without sending them, and the uploads of the rest."""
        outcomes: dict[str, Outcome] = {}
        uploads = []
        now = self._means.clock.now()
        for key, chunk in self._chunks.items():
            destination = self._span.destination(key)
            since = self._span.chunk(key).since
            if destination.startswith("!"):
                kind = Kind.PARKED if destination == f"!{UNRESOLVED}" else Kind.DEAD_LETTER
                outcomes[key] = Outcome.aside(kind, destination[1:])
            elif since is not None and self._means.rules.is_doubt_old(since, now):
                outcomes[key] = Outcome.aside(Kind.IN_DOUBT, "too_old_to_repeat", sure=False)
            else:
                uploads.append(self._upload(chunk, destination))
        return outcomes, uploads

    def _upload(self, chunk: Chunk, database: str) -> Upload:
        generation = self._span.chunk(chunk.key).generation
        unique_id = self._span.unique_id(chunk.key, database, generation)
        return Upload(chunk, database, unique_id, oldest=self._work.records[0][1])

    def _split(self, chunk: Chunk) -> list[Upload] | None:
        """Note that a chunk's halves stand for it, before they are sent; only where none of it can have been taken."""
        halves = chunk.halves()
        if halves is None or self._fenced or chunk.key not in self._fresh:
            return None
        entry = self._span.chunk(chunk.key)
        changes = {chunk.key: replace(entry, split=True, rows=chunk.count)}
        changes |= {half.key: Entry(rows=half.count, since=entry.since) for half in halves}
        ours, standing = self._means.ledger.update(self._span.with_chunks(changes))
        self._span = standing
        if not ours:
            self._fenced = True
            return None
        self._chunks |= {half.key: half for half in halves}
        self._fresh |= {half.key for half in halves}
        return [self._upload(half, standing.destination(half.key)) for half in halves]

    def _unless_taken(self, key: str, outcome: Outcome) -> Outcome:
        """Return a refusal as a doubt where an earlier attempt may have been taken: Treasure Data is asked first."""
        if outcome.kind is not Kind.DEAD_LETTER or self._is_free_of_doubt(key, outcome):
            return outcome
        return Outcome.aside(Kind.IN_DOUBT, outcome.reason, sure=False)

    def _announce(self, outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Note which chunks are refused, before their objects are written; return what others' writes make of them.

        The schedule never looks at dead letters. So whoever delivers such a chunk after all, because this invocation died
        or S3 did not answer, must know that its object may stand.
        """
        refused = [
            key
            for key, outcome in outcomes.items()
            if outcome.kind is Kind.DEAD_LETTER and not self._span.destination(key).startswith("!")
        ]
        entries = {key: self._span.chunk(key) for key in refused}
        changes = {
            key: replace(entry, kind=Kind.DEAD_LETTER, rows=self._chunks[key].count)
            for key, entry in entries.items()
            if entry.state is State.PENDING and entry.kind != Kind.DEAD_LETTER
        }
        if changes:
            ours, self._span = self._means.ledger.update(self._span.with_chunks(changes))
            self._fenced |= not ours
        return {key: self._unless_taken(key, outcomes[key]) for key in refused}

    def _delete_refused(self, outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Delete the objects of delivered chunks that were refused before; return what S3 did not delete as pending."""
        left = {}
        for key, outcome in outcomes.items():
            entry = self._span.chunk(key)
            was_refused = entry.state is State.PENDING and entry.kind == Kind.DEAD_LETTER
            if not was_refused or outcome.state is not State.DELIVERED:
                continue
            name = self._described(key, Outcome.aside(Kind.DEAD_LETTER, "")).name
            try:
                self._means.aside.delete(name)
            except AsideUnavailableError:
                left[key] = Outcome(State.PENDING, reason="aside_unavailable", sure=False)
        return left

    def _set_aside(self, outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Write what is to be aside; return what S3 did not take as pending."""
        aside = [key for key, outcome in outcomes.items() if outcome.state is State.ASIDE]

        jobs = [partial(self._put_aside, key, outcomes[key]) for key in aside]
        written = all_of(self._means.executors, jobs)
        return {
            key: Outcome(State.PENDING, reason="aside_unavailable", sure=outcomes[key].sure)
            for key, is_written in zip(aside, written, strict=True)
            if not is_written
        }

    def _put_aside(self, key: str, outcome: Outcome) -> bool:
        try:
            self._means.aside.put(self._described(key, outcome))
        except AsideUnavailableError:
            return False
        return True

    def _described(self, key: str, outcome: Outcome) -> SetAside:
        chunk = self._chunks[key]
        database = self._span.destination(key)
        if database.startswith("!"):
            database = ""
        came_from = origin(chunk, self._work.records)
        arrivals = [milliseconds(arrived_at) for _, arrived_at in came_from]
        generation = self._span.chunk(key).generation
        return SetAside(
            kind=outcome.kind or Kind.DEAD_LETTER,
            reason=outcome.reason,
            account=chunk.account,
            table=chunk.table,
            database=database,
            rows=chunk.count,
            payload_form="original" if is_reason(chunk.table) else "rows",
            shard=self._shard,
            sequence_numbers=tuple(sequence_number(number) for number, _ in came_from),
            first_seen=min(arrivals),
            last_seen=max(arrivals),
            set_aside_at=round(self._means.clock.now() * 1000),
            unique_id=self._span.unique_id(key, database, generation),
            object_id=self._span.object_id(key),
            chain=self._span.chain,
            after=self._span.after,
            chunk=key,
            payload=chunk.payload(),
        )

    def _settle(self, outcomes: dict[str, Outcome]) -> bool:
        """Write what became of the chunks, merged with what others wrote; tell whether any is pending.

        Where others wrote, a refused chunk may be theirs that was taken: it is set aside once more, in doubt.
        """
        while True:
            changes = self._changes(outcomes)
            settled = self._span.with_chunks(changes)
            pending = self._pending(settled)
            settled = settled.with_chunks({}, done=not pending)
            if settled == self._span:
                return pending
            before = self._span
            ours, self._span = self._means.ledger.update(settled)
            if ours:
                self._count(before, changes)
                return pending
            self._fenced = True
            doubts = {
                key: doubt
                for key, outcome in outcomes.items()
                if self._span.chunk(key).state is State.PENDING
                and (doubt := self._unless_taken(key, outcome)) is not outcome
            }
            outcomes |= doubts | self._set_aside(doubts)

    def _delete_overtaken(self, outcomes: Mapping[str, Outcome]) -> None:
        """Delete what was set aside of chunks that others have delivered meanwhile."""
        for key, outcome in outcomes.items():
            if outcome.state is State.ASIDE and self._span.chunk(key).state is State.DELIVERED:
                with suppress(AsideUnavailableError):
                    self._means.aside.delete(self._described(key, outcome).name)

    def _changes(self, outcomes: Mapping[str, Outcome]) -> dict[str, Entry]:
        """Return the entries that differ from what stands: delivered beats aside beats pending."""
        changes = {}
        for key, outcome in outcomes.items():
            standing = self._span.chunk(key)
            if standing.split or standing.state is State.DELIVERED:
                continue
            entry = standing
            if outcome.state is State.DELIVERED or (
                standing.state is State.PENDING and outcome.state is not State.PENDING
            ):
                entry = replace(
                    standing,
                    state=outcome.state,
                    kind=outcome.kind or "",
                    reason=outcome.reason if outcome.state is State.ASIDE else "",
                )
            if outcome.state is not State.DELIVERED and self._is_free_of_doubt(key, outcome):
                entry = replace(entry, since=None)
            if entry != standing:
                changes[key] = replace(entry, rows=self._chunks[key].count)
        return changes

    def _is_free_of_doubt(self, key: str, outcome: Outcome) -> bool:
        """Tell whether Treasure Data cannot have a chunk that is not delivered."""
        if self._span.destination(key).startswith("!"):
            return True  # it was never to be sent
        return outcome.sure and key in self._fresh and not self._fenced

    def _pending(self, span: Span) -> bool:
        if span.done:
            return False
        planned = {_planned(key) for key in self._chunks}
        return any(span.chunk(leaf).state is State.PENDING for key in planned for leaf in span.leaves(key))

    def _count(self, before: Span, changes: Mapping[str, Entry]) -> None:
        for key, entry in changes.items():
            if entry.state is before.chunk(key).state:
                continue
            if entry.state is State.DELIVERED:
                self._means.journal.count("RowsDelivered", entry.rows)
            elif entry.state is State.ASIDE:
                self._means.journal.count(_METRICS[Kind(entry.kind)], entry.rows)

    def _report(self, outcomes: Mapping[str, Outcome], began: float) -> None:
        rows = dict.fromkeys(State, 0)
        for key, outcome in outcomes.items():
            rows[outcome.state] += self._chunks[key].count
            if outcome.state is State.ASIDE:
                self._means.journal.note(
                    "set aside",
                    kind=outcome.kind,
                    reason=outcome.reason,
                    account=self._chunks[key].account,
                    table=self._chunks[key].table,
                    rows=self._chunks[key].count,
                    object_id=self._span.object_id(key),
                )
        self._means.journal.note(
            "span",
            shard=self._shard,
            first=sequence_number(self._span.first),
            last=sequence_number(self._span.last),
            records=len(self._work.records),
            chunks=len(outcomes),
            delivered=rows[State.DELIVERED],
            aside=rows[State.ASIDE],
            pending=rows[State.PENDING],
            seconds=round(self._means.clock.now() - began, 3),
        )


def _planned(key: str) -> str:
    """Return the planned chunk that a half, or half of a half, came from."""
    owner, table, part = key.split("/")
    return f"{owner}/{table}/{part.partition('.')[0]}"
