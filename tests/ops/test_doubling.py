"""A forced replay refuses what would bring rows to stand in Treasure Data twice."""

import json
from pathlib import Path

import pytest

from doubles.clock import START
from doubles.treasure_data import Action, Fault, Kind
from ops.doubling import refuse
from ops.failure import Failure
from ops.replay import Replay, Stretch
from ops.stream import Border, Stream
from tests.support.delivery import SHARD, STREAM, Delivery, envelope, row
from tests.support.sluice import Sluice, until
from worker.forced import Forced
from worker.span import Kind as AsideKind

EVERYTHING = (Border(), Border())
TAG = Forced("lost")


def dead() -> Delivery:
    """Return a delivery of three records an hour apart, of which the second is a dead letter of an unknown account."""
    made = Delivery()
    made.map(shop="shop")
    for account, event_id in (("shop", "a"), ("stray", "b"), ("shop", "c")):
        made.put(envelope(account, {"views": [row(event_id)]}, request_id=event_id))
        made.clock.sleep(3600)
    made.deliver()
    assert 1 == len(made.objects())
    return made


def hours(first: float, last: float) -> tuple[Border, Border]:
    """Return borders, in hours after the first record."""
    return Border(at=START + first * 3600), Border(at=START + last * 3600)


def numbers(made: Delivery, first: int, last: int) -> tuple[Border, Border]:
    """Return borders by the numbers of the records of that position."""
    found = [int(record["SequenceNumber"]) for record in made.records()]
    return Border(number=found[first]), Border(number=found[last])


def test_a_dead_letter_of_the_stretch_would_be_doubled() -> None:
    """Sent again by force, and later by hand, its row stands there twice; so the replay is refused before."""
    made = dead()
    made.map(stray="stray_db")
    made.start()
    with pytest.raises(Failure, match="1 row of stray/views is a dead letter, and would be doubled"):
        refuse(made.aside, [SHARD], EVERYTHING, TAG, "--local")

    stream = Stream(made.kinesis.client, STREAM, made.clock)
    forced = Replay(stream, lambda event: made.worker.run(event, 120_000), made.clock)
    forced.shard(SHARD, Stretch(*EVERYTHING, TAG), lambda _: None)
    made.send_aside(AsideKind.DEAD_LETTER)
    assert ["b", "b"] == made.ids("stray_db", "views")


def test_once_it_is_delivered_nothing_is_refused_or_doubled() -> None:
    """The advice leads on: redriven first, the rows are replayed once."""
    made = dead()
    made.map(stray="stray_db")
    made.start()
    made.send_aside(AsideKind.DEAD_LETTER)
    refuse(made.aside, [SHARD], EVERYTHING, TAG, "--local")
    made.td.lose("stray_db", "views", 0, 2_000_000_000)

    stream = Stream(made.kinesis.client, STREAM, made.clock)
    forced = Replay(stream, lambda event: made.worker.run(event, 120_000), made.clock)
    for _ in range(2):
        forced.shard(SHARD, Stretch(*EVERYTHING, TAG), lambda _: None)
    made.send_aside(AsideKind.DEAD_LETTER)
    assert ["b"] == made.ids("stray_db", "views")


@pytest.mark.parametrize(
    ("borders", "is_refused"),
    [(hours(0, 1), False), (hours(0, 1.1), True), (hours(1, 2), True), (hours(1.1, 3), False)],
)
def test_only_dead_letters_of_the_stretch_count(borders: tuple[Border, Border], is_refused: bool) -> None:
    """By the time at which the rows arrived."""
    made = dead()
    if is_refused:
        with pytest.raises(Failure):
            refuse(made.aside, [SHARD], borders, TAG, "")
    else:
        refuse(made.aside, [SHARD], borders, TAG, "")


@pytest.mark.parametrize(("first", "last", "is_refused"), [(0, 0, False), (0, 1, True), (2, 2, False)])
def test_sequence_numbers_bound_it_too(first: int, last: int, is_refused: bool) -> None:
    """By the records that the rows came in."""
    made = dead()
    if is_refused:
        with pytest.raises(Failure):
            refuse(made.aside, [SHARD], numbers(made, first, last), TAG, "")
    else:
        refuse(made.aside, [SHARD], numbers(made, first, last), TAG, "")


def test_what_the_replay_does_not_send_does_not_count() -> None:
    """Other accounts, tables and shards, and what never became rows."""
    made = dead()
    for forced in (Forced("t", "shop"), Forced("t", None, "carts")):
        refuse(made.aside, [SHARD], EVERYTHING, forced, "")
    refuse(made.aside, ["shardId-7"], EVERYTHING, TAG, "")
    made.s3.delete_object(Bucket="aside", Key=made.objects()[0])
    made.put(b"\xffnonsense")
    made.deliver(3)
    assert 1 == len(made.objects())
    refuse(made.aside, [SHARD], EVERYTHING, TAG, "")


def test_a_forced_replay_that_is_run_again_is_not_refused_by_its_own_dead_letters() -> None:
    """It has planned them, and does not send them again; another tag would, and is."""
    made = Delivery()
    made.map(shop="shop")
    made.put(envelope("shop", {"views": [row("a")]}))
    made.deliver()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422))
    stream = Stream(made.kinesis.client, STREAM, made.clock)
    made.clock.sleep(1)
    Replay(stream, lambda event: made.worker.run(event, 120_000), made.clock).shard(
        SHARD, Stretch(*EVERYTHING, TAG), lambda _: None
    )
    assert 1 == len(made.objects())

    refuse(made.aside, [SHARD], EVERYTHING, TAG, "")
    for other in (Forced("lost2"), Forced("los"), Forced("lost", "shop")):
        with pytest.raises(Failure):
            refuse(made.aside, [SHARD], EVERYTHING, other, "")


@pytest.mark.xdist_group("ops")
def test_the_command_refuses_in_one_line(sluice: Sluice, tmp_path: Path) -> None:
    """It names what is in the way and the command that clears it; delivered, the replay goes through."""
    sluice.send("later", "later_rows", "a")
    until(lambda: any(one["account"] == "later" for one in sluice.json("status --local")["aside"]))
    line = "replay --local --force --tag later --account later --yes"
    refused = sluice.run(line)
    before = sluice.json("accounts list --local")["accounts"]
    fields = {
        name: one | {"revoked_key_ids": [key for key in one["revoked_key_ids"].split(",") if key]}
        for name, one in before.items()
    }
    file = tmp_path / "accounts.yaml"
    file.write_text(json.dumps({**fields, "later": {"database": "later_db"}}))
    sluice.run(f"accounts apply --local --yes {file}")
    sluice.json("redrive --local --kind dead --account later")
    sluice.lose("later_db", "later_rows")
    done = sluice.run(line)
    file.write_text(json.dumps(fields))
    sluice.run(f"accounts apply --local --yes {file}")

    assert (1, 1) == (refused.exit_code, refused.stderr.count("\n"))
    assert "later/later_rows is a dead letter, and would be doubled by a later redrive" in refused.stderr
    assert "`sluice redrive --local --kind dead`" in refused.stderr
    assert 0 == done.exit_code
    assert ["a"] == sluice.rows("later_db", "later_rows")
