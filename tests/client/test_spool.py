"""The spool keeps every event for which `append` has returned, in batches that never change."""

import resource
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

from sluice_client.errors import SpoolError, SpoolFullError
from sluice_client.spool_directory import SpoolDirectory
from sluice_client.spool_file import Batch, Limits, SpoolFile

LIMITS = Limits(batch_events=3, batch_bytes=100, spool_bytes=10_000)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SpoolFile]:
    """Yield a spool file and close it at the end."""
    opened = SpoolFile(tmp_path / "one.sqlite", LIMITS)
    yield opened
    opened.close()


def oldest(file: SpoolFile) -> Batch:
    """Return the batch that is sent next."""
    batch = file.oldest()
    assert batch is not None
    return batch


def test_a_batch_is_full_by_count(file: SpoolFile) -> None:
    """The event after a full batch begins the next one."""
    for number in range(4):
        file.append(b"%d" % number)

    assert [b"0", b"1", b"2"] == file.events(oldest(file))


def test_a_batch_is_full_by_bytes(file: SpoolFile) -> None:
    """An event that would make a batch too large begins the next one."""
    file.append(b"x" * 60)
    file.append(b"y" * 60)

    assert [b"x" * 60] == file.events(oldest(file))


def test_an_event_larger_than_a_batch_gets_its_own(file: SpoolFile) -> None:
    """The byte limit of batches never holds an event back."""
    file.append(b"x" * 500)
    file.append(b"y")

    assert [b"x" * 500] == file.events(oldest(file))


def test_a_sealed_batch_survives_reopening(file: SpoolFile, tmp_path: Path) -> None:
    """Later events and another process do not change its id or its events."""
    file.append(b"a")
    file.seal()
    before = oldest(file)
    file.append(b"b")
    file.close()
    again = SpoolFile(tmp_path / "one.sqlite", LIMITS)

    assert (before, [b"a"], 1, 2) == (
        oldest(again),
        again.events(before),
        again.open_events,
        again.pending_events,
    )
    again.close()


def interrupted(step: int, run: Callable[[], object], by: Callable[[], object]) -> bool:
    """Call `run`, and within it `by`, as a signal handler would at a step of the spool's code. Return whether there was such a step."""
    steps = iter(range(step + 1))

    def at_each_step(frame: FrameType, event: str, _argument: object) -> None:
        is_step = event in ("call", "c_return") and "sluice_client" in frame.f_code.co_filename
        if is_step and next(steps) == step:
            sys.setprofile(None)
            by()

    sys.setprofile(at_each_step)
    try:
        run()
    finally:
        sys.setprofile(None)
    return next(steps, None) is None


def raise_interrupt() -> None:
    """Do what Python does at Ctrl-C."""
    raise KeyboardInterrupt


def append_all(file: SpoolFile, events: Iterable[bytes]) -> None:
    """Append several events."""
    for event in events:
        file.append(event)


def drained(file: SpoolFile) -> set[bytes]:
    """Return the events of all batches, as they are sent and settled."""
    file.seal()
    drained: set[bytes] = set()
    while batch := file.oldest():
        events = file.events(batch)
        assert drained.isdisjoint(events)
        drained.update(events)
        file.settle(batch)
    return drained


@pytest.mark.parametrize("batch_events", [1, 3])
def test_a_signal_handler_may_append_at_any_moment(tmp_path: Path, batch_events: int) -> None:
    """Whatever it interrupts, each event is in one batch, and the file is empty once all batches are settled."""
    for step in count():
        with closing(SpoolFile(tmp_path / "one.sqlite", Limits(batch_events, 100, 10_000))) as file:
            file.append(b"first")

            is_interrupted = interrupted(
                step, partial(file.append, b"second"), partial(append_all, file, (b"3", b"4"))
            )

            expected = {b"first", b"second"} | ({b"3", b"4"} if is_interrupted else set())
            assert (expected, 0, 0) == (drained(file), file.pending_events, file.pending_bytes)
        if not is_interrupted:
            break


def test_an_interrupted_call_fixes_no_event_in_two_batches(tmp_path: Path) -> None:
    """Ctrl-C ends it at any moment; the event of that call may be stored or not."""
    for step in count():
        with closing(SpoolFile(tmp_path / "one.sqlite", Limits(1, 100, 10_000))) as file:
            file.append(b"first")
            with suppress(KeyboardInterrupt):
                assert not interrupted(step, partial(file.append, b"second"), raise_interrupt)
                break

            file.append(b"third")
            assert {b"first", b"third"} <= drained(file)


def test_sequence_numbers_are_not_reused(file: SpoolFile) -> None:
    """An event that is added after all others were settled cannot be mistaken for one of them."""
    file.append(b"a")
    file.seal()
    file.settle(oldest(file))
    file.append(b"b")

    assert (2, False, True) == (file.last, file.has_before(1), file.has_before(2))


def test_a_full_spool_raises_until_events_are_delivered(file: SpoolFile) -> None:
    """At its limit the spool stores nothing, and the error names the limit; settling a batch makes room."""
    for _ in range(10):
        file.append(b"x" * 999)
    with pytest.raises(SpoolFullError, match="holds 10000 undelivered bytes and may hold 10000"):
        file.append(b"x")
    file.settle(oldest(file))
    file.append(b"x")

    assert 10 == file.pending_events


def test_a_split_batch_keeps_all_events_under_new_ids(file: SpoolFile) -> None:
    """The halves of a batch have its events in order, and neither has its id."""
    for number in range(3):
        file.append(b"%d" % number)
    file.seal()
    whole = oldest(file)
    file.split(whole)
    halves = []
    while batch := file.oldest():
        halves.append((batch.id == whole.id, file.events(batch)))
        file.settle(batch)

    assert ([(False, [b"0"]), (False, [b"1", b"2"])], 0, 0) == (
        halves,
        file.pending_events,
        file.pending_bytes,
    )


def test_a_checkpoint_keeps_everything(file: SpoolFile) -> None:
    """Copying the log into the database loses no event."""
    for number in range(4100):
        if file.pending_events >= 3:
            file.seal()
            file.settle(oldest(file))
        file.append(b"%d" % number)
        if number % 1000 == 0:
            file.sync()
    file.seal()

    assert file.pending_events == oldest(file).events == len(file.events(oldest(file)))


def test_a_file_in_use_is_not_taken_over(tmp_path: Path) -> None:
    """Two owners of one directory get separate files; an empty file is deleted when it is closed."""
    directory = SpoolDirectory(tmp_path / "spool", LIMITS)
    one, other = directory.own(), directory.own()
    one.append(b"a")
    other.close()
    left = sorted(path.suffix for path in directory.path.iterdir())
    one.close()

    assert (True, [".lock", ".reserve", ".sqlite", ".sqlite-shm", ".sqlite-wal"]) == (
        one.path != other.path,
        left,
    )


def test_a_file_without_an_owner_is_taken_over(tmp_path: Path) -> None:
    """The next owner gets the file and its events."""
    directory = SpoolDirectory(tmp_path / "spool", LIMITS)
    left = directory.own()
    left.append(b"a")
    left.close()
    file = directory.own()

    assert (left.path, 1) == (file.path, file.pending_events)
    file.close()


def test_a_corrupt_file_is_renamed(tmp_path: Path) -> None:
    """It does not prevent a client from starting, and is kept for inspection."""
    directory = SpoolDirectory(tmp_path / "spool", LIMITS)
    (directory.path / "bad.lock").touch()
    (directory.path / "bad.sqlite").write_bytes(b"no database" * 1000)
    (directory.path / "bad.sqlite-wal").write_bytes(b"of that one")
    file = directory.own()

    file.close()

    assert {"bad.corrupt"} == {path.name.partition("-")[0] for path in directory.path.iterdir()}


def test_a_file_with_a_damaged_page_is_renamed_too(tmp_path: Path) -> None:
    """Its events could not be sent, and would hold those that a program adds to it."""
    directory = SpoolDirectory(tmp_path / "spool", Limits(500, 900_000, 1_000_000))
    left = directory.own()
    for _ in range(100):
        left.append(b"x" * 200)
    left.seal()
    left.close()
    page = left.path.stat().st_size // 2 // 1024 * 1024
    left.path.write_bytes(left.path.read_bytes()[:page] + bytes(1024) + left.path.read_bytes()[page + 1024 :])

    with closing(directory.own()) as file:
        assert (True, 0) == (file.path != left.path, file.pending_events)


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    """The error names the directory and says how to choose another."""
    (tmp_path / "file").touch()

    with pytest.raises(SpoolError, match="pass another directory as `spool`"):
        SpoolDirectory(tmp_path / "file" / "spool", LIMITS)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of this process's files, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_no_acknowledged_event(file: SpoolFile, tmp_path: Path) -> None:
    """An event that cannot be stored raises and is not stored; all others are, before and after."""
    stored = []
    with largest_file(40_000):
        for number in range(100):
            try:
                file.append(b"%d" % number)
            except SpoolError:
                continue
            stored.append(b"%d" % number)
    file.append(b"last")
    file.close()
    with closing(sqlite3.connect(tmp_path / "one.sqlite")) as database:
        rows = database.execute("SELECT body FROM event ORDER BY seq").fetchall()

    assert (True, [*stored, b"last"]) == (0 < len(stored) < 100, [body for (body,) in rows])


def test_a_settled_batch_is_not_sent_again_while_the_disk_is_full(file: SpoolFile, tmp_path: Path) -> None:
    """It is deleted with a later batch, once there is space."""
    for number in range(9):
        file.append(b"%d" % number)
    file.seal()
    sent = []
    for size in (1, 100_000):
        with largest_file(size):
            sent.append(file.events(oldest(file)))
            file.settle(oldest(file))
        with closing(sqlite3.connect(tmp_path / "one.sqlite")) as database:
            sent.append([body for (body,) in database.execute("SELECT body FROM event ORDER BY seq")])

    assert [
        [b"0", b"1", b"2"], [b"%d" % number for number in range(9)],
        [b"3", b"4", b"5"], [b"6", b"7", b"8"],
    ] == sent  # fmt: skip


def test_a_batch_whose_deletion_failed_is_sent_again_by_the_next_process(
    file: SpoolFile, tmp_path: Path
) -> None:
    """It has the same id, so Sluice counts it once."""
    for number in range(4):
        file.append(b"%d" % number)
    file.seal()
    before = oldest(file)
    with largest_file(1):
        file.settle(before)
        file.close()
    again = SpoolFile(tmp_path / "one.sqlite", LIMITS)

    assert (before, 4) == (oldest(again), again.pending_events)
    again.close()


def test_a_file_that_a_full_disk_kept_works_again_once_all_is_settled(file: SpoolFile) -> None:
    """It is begun anew, which frees its space, and goes on with new sequence numbers."""
    file.append(b"a")
    file.seal()
    with largest_file(1):
        file.settle(oldest(file))
    file.append(b"b")
    file.seal()

    assert ([b"b"], 2, 1) == (file.events(oldest(file)), file.last, file.pending_events)


def test_without_its_reserve_the_spool_stores_nothing(file: SpoolFile) -> None:
    """Space that is too small for the reserve is left to the events that are stored."""
    file.append(b"a")
    with largest_file(1), pytest.raises(SpoolError):
        file.seal()
    with largest_file(60_000), pytest.raises(SpoolError, match="the disk is full; the event was not stored"):
        file.append(b"b")
    file.append(b"c")

    assert 2 == file.pending_events


def test_the_spool_is_private(tmp_path: Path) -> None:
    """Other users cannot read spooled events."""
    SpoolDirectory(tmp_path / "spool", LIMITS)

    assert 0o700 == (tmp_path / "spool").stat().st_mode & 0o777
