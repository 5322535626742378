"""Workers and senders that are killed, or lose an answer, at any step: every row arrives once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
from botocore.exceptions import BotoCoreError

from shared.errors import UnavailableError
from tests.support.delivery import Delivery, KilledError, envelope, kill, lose_answer, row
from worker.plan import Cut
from worker.states import FINAL, State

MINUTE = 60.0
AT = 1_700_000_000


class Steps:
    """Counts the calls to all services, and acts at one of them.

    Attributes:
        count: how many calls began.
    """

    def __init__(
        self, made: Delivery, number: int = -1, moment: str = "", act: Callable[[], Any] = kill
    ) -> None:
        self.count = 0
        self._number, self._moment, self._act = number, moment, act
        for client in (made.dynamodb, made.s3, made.kinesis):
            client.before, client.after = _Any(self._begin), _Any(self._end)
        handle = made.td.handle

        def watched(request: Any) -> Any:
            try:
                self._begin(request)
                answer = handle(request)
                self._end(request)
            except BotoCoreError:
                raise requests.ConnectionError from None
            return answer

        made.td.handle = watched  # type: ignore[method-assign]  # observed
        self._stop = lambda: self._release(made, handle)

    def _begin(self, _: Any) -> None:
        self.count += 1
        self._meet("before")

    def _end(self, _: Any) -> None:
        self._meet("after")

    def _meet(self, moment: str) -> None:
        if self.count == self._number + 1 and moment == self._moment:
            self._moment = ""
            self._act()

    def stop(self) -> None:
        """Leave the services alone."""
        self._stop()

    @staticmethod
    def _release(made: Delivery, handle: Any) -> None:
        for client in (made.dynamodb, made.s3, made.kinesis):
            client.before, client.after = {}, {}
        made.td.handle = handle  # type: ignore[method-assign]


class _Any(dict[str, Any]):
    """The same hook for every call."""

    def __init__(self, hook: Callable[[Any], None]) -> None:
        super().__init__()
        self._hook = hook

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: str) -> Any:
        return self._hook


ROWS = Counter(["a1", "a2", "b1", "c1", "d1", "e1", "f1"])


def delivery(**changes: Any) -> Delivery:
    """Return records of two accounts, two of them copies, one late, one without an account, and one after a gap."""
    made = Delivery(cut=Cut(2, 1 << 20), **changes)
    made.map(shop="shop_db", blog="blog_db")
    copy = envelope("shop", {"views": [row("b1")]}, request_id="b", claim=1)
    made.put(
        envelope("shop", {"views": [row("a1"), row("a2")]}, request_id="a"),
        copy,
        envelope("blog", {"views": [row("c1")]}, request_id="c"),
        copy,
        envelope("shop", {"views": [row("d1")]}, request_id="d"),
        envelope("blog", {"clicks": [row("e1")]}, request_id="e"),
        b"junk",
        envelope("shop", {"views": [row("f1")]}, request_id="f"),
    )
    made.records()
    return made


def arrived(made: Delivery) -> Counter[str]:
    """Return how often each row is in Treasure Data."""
    return Counter(
        one["event_id"]
        for database, tables in made.td.counts().items()
        for table in tables
        for one in made.td.rows(database, table)
    )


def finish(made: Delivery) -> None:
    """Deliver everything again in a new sandbox, and run the sender for hours; all rows must arrive once."""
    made.start()
    for minutes in (0, 1, 3, 1, 90, 1, 90, 1):
        made.clock.sleep(minutes * MINUTE)
        assert made.deliver() is None
        made.send()
    expected = Counter(ROWS)
    expected["g1"] += len(made.records()) > len(ROWS) + 1
    assert +expected == arrived(made)
    states = {entry.state for span in made.spans() for _, entry in span.all_leaves()}
    assert states <= FINAL | {State.DEAD}
    assert {("dead", "undecodable", 1)} == set(made.chunks(State.DEAD).values())


def worker(made: Delivery) -> None:
    """Deliver a batch that leaves records out, then all of them."""
    event = made.event()
    event["Records"] = event["Records"][1:2] + event["Records"][3:4] + event["Records"][5:7]
    made.run(event)
    made.run(made.event())


def sender(made: Delivery) -> None:
    """Run the sender."""
    made.send()


def waiting() -> Delivery:
    """Return a delivery whose rows all wait, some with a doubt."""
    made = delivery()
    for database, status in (("shop_db", 429), ("blog_db", 503)):
        made.td.create(database, "views")
        made.fail(status=status, database=database)
    worker(made)
    made.td.faults.clear()
    return made.start()


def unsettled() -> Delivery:
    """Return a delivery whose worker was killed after it had sent."""
    made = delivery()
    made.dynamodb.before = {"update_item": lambda _: kill()}
    with pytest.raises(KilledError):
        made.deliver()
    made.dynamodb.before = {}
    made.clock.sleep(3 * MINUTE)
    return made.start()


def in_doubt() -> Delivery:
    """Return a delivery with a doubt that is asked about."""
    made = unsettled()
    made.clock.sleep(90 * MINUTE)
    return made


def refused() -> Delivery:
    """Return a delivery whose waiting rows Treasure Data takes one by one only."""
    made = waiting()
    made.td.settings = replace(made.td.settings, largest_import=70)
    return made


def put_again() -> Delivery:
    """Return a delivery with copies of two of its envelopes, and an envelope of which no first copy landed."""
    made = delivery()
    worker(made)
    for name, rows in (("a", ("a1", "a2")), ("d", ("d1",)), ("g", ("g1",))):
        made.put(envelope("shop", {"views": map(row, rows)}, request_id=name, claim=AT * 1000))
    assert made.deliver(8) is None
    made.clock.sleep(11 * MINUTE)
    made.send()
    assert made.deliver() is None
    return made.start()


@pytest.mark.parametrize("act", [kill, lose_answer])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("make", "run"),
    [
        (delivery, worker),
        (waiting, sender),
        (unsettled, sender),
        (in_doubt, sender),
        (refused, sender),
        (put_again, sender),
    ],
)
def test_every_row_arrives_once_whatever_is_killed(
    make: Callable[[], Delivery], run: Callable[[Delivery], None], moment: str, act: Callable[[], Any]
) -> None:
    """Each call to a service is the last one of a function, or loses its answer."""
    made = make()
    steps = Steps(made)
    run(made.start())
    steps.stop()
    finish(made)

    for number in range(steps.count):
        made = make()
        broken = Steps(made, number, moment, act)
        try:
            run(made.start())
        except (KilledError, UnavailableError):
            pass
        finally:
            broken.stop()
        finish(made)
