"""What cannot be brought from the overflow queue to the stream becomes set-aside chunks.

They belong to a span of their own, so that the ledger accounts for them and the redrive treats them as all others:
what is parked goes to Treasure Data past the stream, and what is in doubt only after Treasure Data was asked for it.
"""

from collections.abc import Mapping
from dataclasses import replace

from shared.clock import Clock
from shared.envelope import Envelope, TableRows
from worker.aside import Aside, SetAside
from worker.ledger import Ledger
from worker.message import Message
from worker.record import NOBODY, START, packed
from worker.span import Cut, Entry, Kind, Span, State

CHAINS = "overflow#"
"""How the names of such spans' chains begin; a request id, or a message's id, follows."""

REFUSED = "stream_refused"
UNSEARCHED = "stream_unsearched"

_UNCUT = Cut(rows=1_000_000, bytes=1 << 30)  # an envelope's rows of one table are one chunk


class Unplaced:
    """Sets aside what the queue holds.

    Args:
        ledger: where the chunks' spans stand.
        aside: takes the chunks.
        clock: tells when.
    """

    def __init__(self, ledger: Ledger, aside: Aside, clock: Clock) -> None:
        self._ledger = ledger
        self._aside = aside
        self._clock = clock

    def set_aside(self, envelope: Envelope, sent_at: float, *, absent: bool) -> bool:
        """Set aside an envelope; return False, and do nothing, when a record on the stream counts in its place.

        Args:
            envelope: whose put was refused, or in doubt.
            sent_at: UNIX seconds at which it came to the queue.
            absent: it is not on the stream. Otherwise nobody can tell, and Treasure Data may have its rows.

        Raises:
            AsideUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        chain = f"{CHAINS}{envelope.request_id}"
        # Puts of the drainer may have landed, or land later: the worker then finds their envelope claimed.
        if not self._ledger.claim(envelope.request_id, chain):
            return False
        entry = Entry(State.ASIDE, kind=Kind.PARKED, reason=REFUSED)
        if not absent:
            entry = replace(entry, since=round(sent_at * 1000), kind=Kind.IN_DOUBT, reason=UNSEARCHED)
        databases = {envelope.account: f"!{entry.reason}"}
        self._write(chain, databases, envelope.tables, entry, (envelope.received_at, round(sent_at * 1000)))
        return True

    def bury(self, message: Message) -> None:
        """Set aside a message that holds no envelope, as a dead letter.

        Raises:
            AsideUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        entry = Entry(State.ASIDE, kind=Kind.DEAD_LETTER, reason=message.fault)
        original = TableRows(f"-{message.fault}", 1, packed(message.body.encode()))
        seen = (round(message.sent_at * 1000),) * 2
        self._write(f"{CHAINS}{message.message_id}", {}, (original,), entry, seen)

    def _write(
        self,
        chain: str,
        databases: Mapping[str, str],
        tables: tuple[TableRows, ...],
        entry: Entry,
        seen: tuple[int, int],
    ) -> None:
        """Write the objects, then the span that says that they are there."""
        owner = next(iter(databases), NOBODY)
        now = round(self._clock.now() * 1000)
        span = Span(
            chain=chain,
            after=START,
            first=START,
            last=START,
            planned_at=now,
            databases=databases,
            cut=_UNCUT,
            counts={f"{owner}/{rows.table}": rows.count for rows in tables},
            done=True,
            chunks={f"{owner}/{rows.table}/0": replace(entry, rows=rows.count) for rows in tables},
        )
        for rows in tables:
            key = f"{owner}/{rows.table}/0"
            chunk = SetAside(
                kind=Kind(entry.kind),
                reason=entry.reason,
                account=owner,
                table=rows.table,
                database="",
                rows=rows.count,
                payload_form="rows" if databases else "original",
                shard="",
                sequence_numbers=(),
                first_seen=seen[0],
                last_seen=seen[1],
                set_aside_at=now,
                unique_id="",
                object_id=span.object_id(key),
                chain=chain,
                after=START,
                chunk=key,
                payload=rows.rows,
            )
            self._aside.put(chunk)
        self._ledger.append(span)
