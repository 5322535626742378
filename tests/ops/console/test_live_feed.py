"""Pages poll for the events after a number, and the stream is read only while someone watches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from doubles.clock import START, ManualClock
from ops.console.live_feed import LiveFeed
from ops.events.seen_event import Kind, Notice, SeenEvent
from shared.errors import ShardUnreadableError
from shared.tracking_plan import TrackingPlan


def event(number: int) -> SeenEvent:
    """Return an event."""
    return SeenEvent(kind=Kind.EVENT, at=1.0, account="shop", table="views", key_id="k1", row={"n": number})


class Followed:
    """A feed that reads synchronously. Its tails take seconds to yield each item; None yields nothing, an exception is raised."""

    def __init__(
        self, *found: SeenEvent | Notice | Exception | None, seconds: float = 0.0, **options: Any
    ) -> None:
        self.clock = ManualClock()
        self.found = list(found)
        self.began: list[float] = []
        self.seconds = seconds
        self.feed = LiveFeed(self._tail, self.clock, history_seconds=60, start=lambda job: job(), **options)

    def _tail(self, since: float) -> Any:
        self.began.append(since)
        return SimpleNamespace(events=self._events)

    def _events(self, until: Callable[[], float]) -> Iterator[SeenEvent | Notice]:
        while self.found and self.clock.now() < until():
            one = self.found.pop(0)
            if isinstance(one, Exception):
                raise one
            self.clock.sleep(self.seconds)
            if one is not None:
                yield one


@pytest.mark.parametrize("after", ["", "-1", "x", "99999"])
def test_a_page_gets_each_event_once(after: str) -> None:
    """It asks with the number from the previous response. With an invalid one, or one from before a restart of the console, it goes on."""
    followed = Followed(event(1), event(2))
    first = followed.feed.page({"after": after})
    followed.clock.sleep(20)
    followed.found += [event(3)]
    second = followed.feed.page({"after": str(first["next"])})

    assert ([] if after == "99999" else [1, 2]) == [one["row"]["n"] for one in first["events"]]
    assert [3] == [one["row"]["n"] for one in second["events"]]
    known = {"kind": "event", "account": "shop", "table": "views", "key_id": "k1"}
    assert known.items() <= second["events"][0].items()


def test_a_page_is_told_how_many_events_it_missed() -> None:
    """Only the latest of many events are kept."""
    followed = Followed(event(0))
    followed.feed.after(0)
    followed.found += [event(number) for number in range(3000)]
    followed.clock.sleep(20)
    page = followed.feed.after(1)

    assert (500, 3001) == (len(page["events"]), page["next"])
    assert "2,500 events arrived too fast to be shown." == page["note"]


def test_the_stream_is_read_only_while_someone_watches() -> None:
    """The next page continues where reading stopped. That is some minutes after the last page has asked, although nothing arrives."""
    followed = Followed(*(event(number) for number in range(5)), seconds=200)
    first = followed.feed.after(0)
    followed.clock.sleep(3600)
    second = followed.feed.after(first["next"])
    idle = Followed(event(0), *[None] * 1000, seconds=10)
    idle.feed.after(0)

    assert [0, 1] == [one["row"]["n"] for one in first["events"]]
    assert [2, 3] == [one["row"]["n"] for one in second["events"]]
    assert [START - 60, START + 400] == followed.began
    assert START + 300 == idle.clock.now()


def test_what_is_wrong_with_the_stream_is_shown_until_it_is_resolved() -> None:
    """It cannot be read, and is tried again a while later, however often a page asks; or the tail lags."""
    followed = Followed(ShardUnreadableError("no"), event(1), Notice("shard-1", "shard-1 is 5 s behind"))
    first = followed.feed.after(0)
    at_once = followed.feed.after(0)
    followed.clock.sleep(11)
    behind = followed.feed.after(0)
    followed.found += [Notice("shard-1", "has caught up", is_over=True)]
    followed.clock.sleep(11)

    assert first["note"].startswith("The stream cannot be read: ")
    assert ([], first["note"]) == (at_once["events"], at_once["note"])
    assert [1] == [one["row"]["n"] for one in behind["events"]]
    assert "shard-1 is 5 s behind" in behind["note"]
    assert "" == followed.feed.after(0)["note"]


HASHED = {"type": "string", "personal": "hash", "pattern": ".+@.+", "required": True}
PLANNED = {"columns": {"n": "integer", "email": HASHED}}
PLAN = TrackingPlan.parse({"tables": {"views": PLANNED, "off": {"mode": "off", "columns": {}}}})


def test_events_are_compared_with_their_accounts_plan() -> None:
    """They are compared as stored, before personal data is replaced; what the ingest dropped or hashed cannot be checked."""
    wrong, planned = replace(event(1), row={"n": "1", "user_id": 7}), event(1)
    unplanned = replace(event(1), table="vews", row={"user_id": "u"})
    row = {"table": "views", "N": "x", "more": 1}
    rejected = replace(event(1), kind=Kind.REJECTED, code="wrong_type", row=row)
    switched_off, foreign = replace(event(1), table="off"), replace(event(1), account="news", row={"x": 1})
    plan = {"shop": PLAN}.get
    followed = Followed(wrong, wrong, planned, unplanned, rejected, switched_off, foreign, plan=plan)
    page = followed.feed.after(0)
    raw = Followed(wrong, scrubs=False).feed.after(0)  # as with --raw

    assert [2, 2, 0, 1, 1, 0, 0] == [len(one["differs"]) for one in page["events"]]
    assert page["events"][0]["row"]["user_id"] not in (7, "7")
    assert 7 == raw["events"][0]["row"]["user_id"]
