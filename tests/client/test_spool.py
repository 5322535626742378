"""The spool keeps every event for which `append` has returned, in batches that never change."""

import resource
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import FrameType

import pytest

from sluice_client.errors import SpoolError, SpoolFullError
from sluice_client.spool_directory import SpoolDirectory
from sluice_client.spool_file import Limits, SpoolFile

LIMITS = Limits(batch_events=3, batch_bytes=100, spool_bytes=10_000)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SpoolFile]:
    """Yield a spool file and close it at the end."""
    with closing(SpoolFile(tmp_path / "one.sqlite", LIMITS)) as opened:
        yield opened


def append(file: SpoolFile, *events: bytes) -> None:
    """Append events."""
    for event in events:
        file.append(event)


def stored(path: Path) -> list[bytes]:
    """Return the events that are on disk."""
    with closing(sqlite3.connect(path)) as database:
        return [body for (body,) in database.execute("SELECT body FROM event ORDER BY seq")]


def drained(file: SpoolFile) -> list[list[bytes]]:
    """Return the events of each batch, as they are sent and settled."""
    file.seal()
    batches = []
    while batch := file.oldest():
        batches.append(file.events(batch))
        file.settle(batch)
    return batches


@pytest.mark.parametrize("sizes", [[(1, 2, 3), (4,)], [(60,), (61,)], [(500,), (1,)]])
def test_a_batch_is_full_by_count_or_by_bytes(file: SpoolFile, sizes: list[tuple[int, ...]]) -> None:
    """The next event begins another batch; one that is larger than a batch gets its own."""
    append(file, *(b"x" * size for size in chain(*sizes)))

    assert sizes == [tuple(map(len, batch)) for batch in drained(file)]
    assert (0, 0) == (file.pending_events, file.pending_bytes)


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


@pytest.mark.parametrize("batch_events", [1, 3])
def test_a_signal_handler_may_append_at_any_moment(tmp_path: Path, batch_events: int) -> None:
    """Whatever it interrupts, each event is in one batch, and the file is empty once all batches are settled."""
    for step in count():
        with closing(SpoolFile(tmp_path / "one.sqlite", Limits(batch_events, 100, 10_000))) as file:
            file.append(b"1")

            is_interrupted = interrupted(step, partial(file.append, b"2"), partial(append, file, b"3", b"4"))

            expected = [b"1", b"2", *([b"3", b"4"] if is_interrupted else [])]
            assert expected == sorted(chain(*drained(file)))
            assert (0, 0) == (file.pending_events, file.pending_bytes)
        if not is_interrupted:
            break


def test_an_interrupted_call_fixes_no_event_in_two_batches(tmp_path: Path) -> None:
    """Ctrl-C ends it at any moment; the event of that call may be stored or not."""
    ctrl_c = partial(signal.default_int_handler, signal.SIGINT, None)
    for step in count():
        with closing(SpoolFile(tmp_path / "one.sqlite", Limits(1, 100, 10_000))) as file:
            file.append(b"1")
            with suppress(KeyboardInterrupt):
                assert not interrupted(step, partial(file.append, b"2"), ctrl_c)
                break

            file.append(b"3")
            assert sorted(chain(*drained(file))) in ([b"1", b"3"], [b"1", b"2", b"3"])


def test_sequence_numbers_are_not_reused(file: SpoolFile) -> None:
    """An event that is added after all others were settled cannot be mistaken for one of them."""
    file.append(b"a")
    drained(file)
    file.append(b"b")

    assert (2, False, True) == (file.last, file.has_before(1), file.has_before(2))


def test_a_full_spool_raises_until_events_are_delivered(file: SpoolFile) -> None:
    """At its limit the spool stores nothing, and the error names the limit; settling a batch makes room."""
    append(file, *[b"x" * 999] * 10)
    with pytest.raises(SpoolFullError, match="holds 10000 undelivered bytes and may hold 10000"):
        file.append(b"x")
    file.settle(file.oldest())
    file.append(b"x")

    assert 10 == file.pending_events


def test_a_split_batch_keeps_all_events_under_new_ids(file: SpoolFile) -> None:
    """The halves of a batch have its events in order, and neither has its id."""
    append(file, b"0", b"1", b"2")
    file.seal()
    whole = file.oldest()
    file.split(whole)

    assert whole.id != file.oldest().id
    assert ([[b"0"], [b"1", b"2"]], 0, 0) == (drained(file), file.pending_events, file.pending_bytes)


def test_a_checkpoint_keeps_everything(file: SpoolFile) -> None:
    """Copying the log into the database loses no event."""
    for number in range(4100):
        if file.pending_events >= 3:
            drained(file)
        file.append(b"%d" % number)
        if number % 1000 == 0:
            file.sync()
    file.seal()

    assert file.pending_events == file.oldest().events == len(file.events(file.oldest()))


def test_a_file_belongs_to_one_owner_until_that_ends(tmp_path: Path) -> None:
    """Two owners get separate files, which no other user can read; the next one takes over what is left, and an empty file is deleted."""
    directory = SpoolDirectory(tmp_path / "spool", LIMITS)
    one, other = directory.own(), directory.own()
    one.append(b"a")
    other.close()
    left = sorted(path.suffix for path in directory.path.iterdir())
    one.close()
    with closing(directory.own()) as file:
        assert (True, one.path, [[b"a"]]) == (one.path != other.path, file.path, drained(file))

    assert [".lock", ".reserve", ".sqlite", ".sqlite-shm", ".sqlite-wal"] == left
    assert ([], 0o700) == (list(directory.path.iterdir()), directory.path.stat().st_mode & 0o777)


def test_a_file_whose_lock_was_deleted_is_taken_over(tmp_path: Path) -> None:
    """Unless its owner still has it, even if that has forked since. One that cannot be taken over keeps nobody from the others."""
    directory = SpoolDirectory(tmp_path / "spool", LIMITS)
    one = directory.own()
    one.append(b"a")
    stuck = directory.path / "0.sqlite"
    stuck.touch()
    stuck.with_suffix(".lock").symlink_to("/dev/null/0")
    one.path.with_suffix(".lock").unlink()
    one.before_fork()
    one.after_fork_in_parent()
    with closing(directory.own()) as other:
        assert other.path != one.path
    one.close()
    with closing(directory.own()) as file:
        assert (one.path, [[b"a"]]) == (file.path, drained(file))


@pytest.mark.parametrize("damaged", ["file", "page", "id", "column", "name", "format", "count"])
def test_a_corrupt_file_is_renamed(tmp_path: Path, damaged: str) -> None:
    """It does not prevent a client from starting, even if only a part is damaged, which would hold all events; it is kept for inspection."""
    directory = SpoolDirectory(tmp_path / "spool", Limits(500, 900_000, 1_000_000))
    left = directory.own()
    append(left, *[b"x" * 200] * 100)
    left.seal()
    id_ = left.oldest().id.encode()
    left.close()
    page = left.path.stat().st_size // 2 // 1024 * 1024
    text = left.path.read_bytes()
    damages = {"file": b"none" * 1000, "page": text[:page] + bytes(1024) + text[page + 1024 :]}
    damages |= {"id": text.replace(id_, b"\xff" + id_[1:]), "column": text.replace(b"id TEXT", b"hd TEXT")}
    damages |= {"name": text.replace(b"batch", b"b\xe1tch", 1), "format": text[:47] + b"\5" + text[48:]}
    damages |= {"count": text.replace(b"d\x4e\x84" + id_, b"e\x4e\x84" + id_)}  # 101 events
    left.path.write_bytes(damages[damaged])
    Path(f"{left.path}-wal").write_bytes(b"of that one")
    with closing(directory.own()) as file:
        assert (True, 0) == (file.path != left.path, file.pending_events)

    assert {f"{left.path.stem}.corrupt"} == {path.name.partition("-")[0] for path in directory.path.iterdir()}


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


def test_a_full_disk_loses_no_acknowledged_event(file: SpoolFile) -> None:
    """An event that cannot be stored raises and is not stored; all others are, before and after."""
    acknowledged = []
    with largest_file(40_000):
        for number in range(100):
            with suppress(SpoolError):
                file.append(b"%d" % number)
                acknowledged.append(b"%d" % number)
    file.append(b"last")

    assert (True, [*acknowledged, b"last"]) == (0 < len(acknowledged) < 100, stored(file.path))


def test_a_settled_batch_is_not_sent_again_while_the_disk_is_full(file: SpoolFile) -> None:
    """It is deleted with a later batch, once there is space."""
    numbers = [b"%d" % number for number in range(9)]
    append(file, *numbers)
    file.seal()
    sent = []
    for size in (1, 100_000):
        with largest_file(size):
            sent += [file.events(file.oldest())]
            file.settle(file.oldest())
        sent += [stored(file.path)]

    assert [numbers[:3], numbers, numbers[3:6], numbers[6:]] == sent


def test_a_batch_whose_deletion_failed_is_sent_again_by_the_next_process(file: SpoolFile) -> None:
    """It has the same id, so Sluice counts it once; later events are still in no batch."""
    append(file, b"0", b"1", b"2", b"3")
    file.seal()
    file.append(b"4")
    before = file.oldest()
    with largest_file(1):
        file.settle(before)
        file.close()
    with closing(SpoolFile(file.path, LIMITS)) as again:
        assert (before, 1, 5) == (again.oldest(), again.open_events, again.pending_events)
        assert [[b"0", b"1", b"2"], [b"3"], [b"4"]] == drained(again)


def test_a_file_that_a_full_disk_kept_works_again_once_all_is_settled(file: SpoolFile) -> None:
    """It is begun anew, which frees its space, and goes on with new sequence numbers."""
    file.append(b"a")
    file.seal()
    with largest_file(1):
        file.settle(file.oldest())
    file.append(b"b")

    assert (2, 1, [[b"b"]]) == (file.last, file.pending_events, drained(file))


def test_without_its_reserve_the_spool_stores_nothing(file: SpoolFile) -> None:
    """Space that is too small for the reserve is left to the events that are stored."""
    file.append(b"a")
    with largest_file(1), pytest.raises(SpoolError):
        file.seal()
    with largest_file(60_000), pytest.raises(SpoolError, match="the disk is full; the event was not stored"):
        file.append(b"b")
    file.append(b"c")

    assert 2 == file.pending_events
