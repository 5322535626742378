"""What the sender does after each kind of response, without a network and without waiting."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from sluice_client.endpoint import Answer, Endpoint, Settled, Unacceptable, Unknown
from sluice_client.sender import Rejection, Retries, Sender
from sluice_client.spool_directory import SpoolDirectory
from sluice_client.spool_file import Limits


class Bench(Endpoint):
    """A sender, its spool, and an endpoint that returns these answers in turn, each after `seconds`, and the last one repeatedly."""

    def __init__(self, folder: Path, *answers: Answer) -> None:
        super().__init__("https://collect.example.com", "shop.k1.x", 1.0, lambda: 0.0)
        self.answers = list(answers)
        self.seconds = self.now = 0.0
        self.sent: list[tuple[str, list[bytes]]] = []
        self.rejected: list[Rejection] = []
        self.directory = SpoolDirectory(folder / "spool", Limits(30, 1000, 10_000))
        self.file = self.directory.own()
        retries = Retries(1.0, 60.0, lambda: 1.0)
        self.sender = Sender(
            self, self.file, self.directory, 0.0, retries, self.rejected.append, lambda: self.now
        )

    def send(self, batch_id: str, events: Sequence[bytes]) -> Answer:
        """Record the batch and return the next answer."""
        self.sent.append((batch_id, list(events)))
        self.now += self.seconds
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def step(self, now: float) -> float:
        """Run one step of the sender at this time."""
        self.now = now
        return self.sender.step()

    def track(self, *events: bytes) -> None:
        """Store events and seal their batch."""
        for event in events:
            self.file.append(event)
        self.file.seal()


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes senders, and close their files at the end."""
    made = []

    def one(*answers: Answer) -> Bench:
        made.append(Bench(tmp_path, *answers))
        return made[-1]

    yield one
    for bench in made:
        for file in bench.sender.files:
            file.close()


def test_waits_double_up_to_a_limit(make: Make) -> None:
    """The wait doubles after each failure, and is short again after a success."""
    bench = make(*[Unknown("http_503", "")] * 8, Settled([]), Unknown("http_503", ""))
    bench.track(b"{}")
    now, waits = 0.0, []
    for _ in range(8):
        waits.append(bench.step(now))
        now += waits[-1]
    bench.step(now)
    bench.track(b"{}")

    assert ([1, 2, 4, 8, 16, 32, 60, 60], 1) == (waits, bench.step(now))


def test_a_wait_begins_when_the_response_arrives_and_is_not_cut_short(make: Make) -> None:
    """Nothing is sent before `Retry-After` has passed, even if the response was slow and events are added."""
    bench = make(Unknown("http_503", "", after=300.0))
    bench.seconds = 9.0
    bench.track(b"{}")
    bench.step(0.0)
    bench.track(b"{}")
    waits = [bench.step(now) for now in (100.0, 304.0)]
    sent = len(bench.sent)
    bench.step(309.0)

    assert ([10.0, 5.0], 1, 2) == (waits, sent, len(bench.sent))


def test_a_retry_has_the_same_id_and_events(make: Make) -> None:
    """Events that are added after a failure do not join the batch that is retried."""
    bench = make(Unknown("http_503", ""), Settled([]))
    bench.track(b"1", b"2")
    bench.step(0.0)
    bench.track(b"3")
    bench.step(1.0)
    first, second = bench.sent

    assert (first, [b"1", b"2"], 1) == (second, second[1], bench.file.pending_events)


@pytest.mark.parametrize(
    ("damaged", "reported"),
    [
        (b'{"n": 4}', {"n": 4}),
        (b'{"n": \xff}', {"unreadable": '{"n": \ufffd}'}),
        (b'{"n": 4', {"unreadable": '{"n": 4'}),
        (b"4", {"unreadable": "4"}),
    ],
)
def test_an_unreadable_event_is_isolated(make: Make, damaged: bytes, reported: dict[str, object]) -> None:
    """A rejected batch is split until the bad event is alone, which the client may be unable to read, too; the others are accepted."""
    bench = make(Settled([]))
    send = bench.send
    events = [b'{"n": %d}' % number for number in range(25)]
    events[4] = damaged
    bad = Unacceptable("invalid_json", "text")
    bench.send = lambda batch_id, sent: bad if events[4] in sent else send(batch_id, sent)  # type: ignore[method-assign]
    bench.track(*events)
    with closing(sqlite3.connect(bench.file.path)) as file, file:
        file.execute("UPDATE event SET body = CAST(body AS TEXT)")
    for _ in range(20):
        bench.step(0.0)

    assert [Rejection(reported, "invalid_json", "text")] == bench.rejected
    assert [*events[:4], *events[5:]] == [event for _, sent in bench.sent for event in sent]
    assert 0 == bench.file.pending_events


def test_what_processes_that_ended_have_left_is_pending_until_it_is_sent(make: Make) -> None:
    """So is what is in no batch yet, even while the endpoint is down and this process has its own events; then the file goes."""
    bench = make(*[Unknown("http_503", "")] * 2, Settled([]))
    bench.track(b"own")
    bench.step(0.0)
    left = bench.directory.own()
    left.append(b"left")
    left.close()
    bench.step(10.0)

    assert (2, len(b"own,left,")) == bench.sender.pending
    for now in (20.0, 20.0, 20.0):
        bench.step(now)
    assert ([[b"own"], [b"left"]], False) == ([sent for _, sent in bench.sent[2:]], left.path.exists())
