"""Pages ask for the events after a number; nothing is read for nobody."""

from collections.abc import Iterator

import pytest

from doubles.clock import START, ManualClock
from ops.live_feed import LiveFeed
from ops.tail import Kind, Notice, Seen, Trouble
from shared.errors import ShardUnreadableError


class FakeTail:
    """A tail that yields what it is given, and lets time pass between."""

    def __init__(
        self, found: list[Seen | Notice | Exception], clock: ManualClock, seconds: float = 0.0
    ) -> None:
        self.found = found
        self.clock = clock
        self.seconds = seconds
        self.stopped = False

    def events(self) -> Iterator[Seen | Notice]:
        """Yield it."""
        while self.found and not self.stopped:
            one = self.found.pop(0)
            if isinstance(one, Exception):
                raise one
            self.clock.sleep(self.seconds)
            yield one

    def stop(self) -> None:
        """End."""
        self.stopped = True


def event(number: int) -> Seen:
    """Return an event."""
    return Seen(kind=Kind.EVENT, at=1.0, account="shop", table="views", key_id="k1", row={"n": number})


class Followed:
    """A feed that follows in line, and the tails that it has asked for."""

    def __init__(self, *found: Seen | Notice | Exception, seconds: float = 0.0) -> None:
        self.clock = ManualClock()
        self.found = list(found)
        self.began: list[float] = []
        self.seconds = seconds
        self.feed = LiveFeed(self._tail, self.clock, history_seconds=60, start=lambda job: job())

    def _tail(self, since: float) -> FakeTail:
        self.began.append(since)
        return FakeTail(self.found, self.clock, self.seconds)


def test_a_page_gets_each_event_once() -> None:
    """It asks with the number that it was told."""
    followed = Followed(event(1), event(2))
    first = followed.feed.page({})
    followed.clock.sleep(20)
    followed.found += [event(3)]
    second = followed.feed.page({"after": str(first["next"])})

    assert [1, 2] == [one["row"]["n"] for one in first["events"]]
    assert [3] == [one["row"]["n"] for one in second["events"]]
    assert ("event", "shop", "views", "k1") == tuple(
        second["events"][0][name] for name in ("kind", "account", "table", "key_id")
    )


@pytest.mark.parametrize("after", ["", "-1", "x", "99999"])
def test_a_number_that_is_none_is_no_mistake(after: str) -> None:
    """A page that was open while the console was started anew goes on."""
    assert 1 == Followed(event(1)).feed.page({"after": after})["next"]


def test_a_page_is_told_what_it_has_missed() -> None:
    """Of many events the latest are kept."""
    followed = Followed(event(0))
    followed.feed.after(0)
    followed.found += [event(number) for number in range(3000)]
    followed.clock.sleep(20)
    page = followed.feed.after(1)

    assert (500, 3001) == (len(page["events"]), page["next"])
    assert "2,500 events came too fast to be shown." == page["note"]


def test_nobody_watches_and_nothing_is_read() -> None:
    """The next page goes on from there."""
    followed = Followed(*(event(number) for number in range(5)), seconds=200)
    first = followed.feed.after(0)
    followed.clock.sleep(3600)
    second = followed.feed.after(first["next"])

    assert [0, 1] == [one["row"]["n"] for one in first["events"]]
    assert [2, 3] == [one["row"]["n"] for one in second["events"]]
    assert [START - 60, START + 400] == followed.began


def test_a_stream_that_cannot_be_read_is_said_and_tried_again() -> None:
    """Not at each question of a page."""
    followed = Followed(ShardUnreadableError("no"), event(1))
    first = followed.feed.after(0)
    at_once = followed.feed.after(0)
    followed.clock.sleep(11)
    later = followed.feed.after(0)

    assert first["note"].startswith("The stream cannot be read: ")
    assert ([], first["note"]) == (at_once["events"], at_once["note"])
    assert ([1], "") == ([one["row"]["n"] for one in later["events"]], later["note"])


def test_what_the_tail_says_of_itself_is_shown_until_it_is_over() -> None:
    """Such as that it lags."""
    followed = Followed(Notice(Trouble.LAGS, "shard-1", 5.0))
    behind = followed.feed.after(0)
    followed.found += [Notice(Trouble.CAUGHT_UP, "shard-1")]
    followed.clock.sleep(11)

    assert "shard-1 is 5 s behind" in behind["note"]
    assert "" == followed.feed.after(0)["note"]
