"""A forced replay duplicates no set-aside row and omits no delivered one."""

from pathlib import Path

import pytest
from worker.delivery import Decision, State

from doubles.treasure_data import Action, Fault, Kind
from ops.stream.reader import RangeEnd, StreamReader
from ops.stream.replayer import Replay, Stretch
from shared.accounts import Account
from tests.support.delivery import KEYS, SHARD, STREAM, Delivery, envelope, row
from tests.support.sluice import Sluice, until
from worker.forced_replay import ForcedReplay
from worker.shards import Shards

LONG = 2_000_000_000


def forced(made: Delivery) -> None:
    """Replay everything by force."""
    stream = StreamReader(Shards(made.kinesis.client, STREAM, made.clock), made.clock)
    made.clock.sleep(1)
    Replay(stream, lambda event: made.run(event, 120_000), made.clock).shard(
        SHARD, Stretch(RangeEnd(), RangeEnd(), ForcedReplay("lost")), lambda _: None
    )


def dead() -> Delivery:
    """Return a delivery of three records; the second is a dead letter of an unknown account."""
    made = Delivery()
    made.map(shop="shop")
    for account, event_id in (("shop", "a"), ("stray", "b"), ("shop", "c")):
        made.put(envelope(account, {"views": [row(event_id)]}, request_id=event_id))
    made.deliver()
    made.map(stray="stray_db")
    return made.start()


def test_only_the_redrive_sends_a_dead_letter() -> None:
    """A forced replay omits it, so a later redrive delivers it once."""
    made = dead()
    made.td.lose("shop", "views", 0, LONG)

    forced(made)
    made.redrive(State.DEAD_LETTER)

    assert ["a", "c"] == made.ids("shop", "views")
    assert ["b"] == made.ids("stray_db", "views")


def test_a_redriven_dead_letter_can_be_replayed() -> None:
    """It counts as delivered, so a forced replay sends it again, once."""
    made = dead()
    made.redrive(State.DEAD_LETTER)
    made.td.lose("stray_db", "views", 0, LONG)

    for _ in range(2):
        forced(made)

    assert ["b"] == made.ids("stray_db", "views")


def test_a_dropped_dead_letter_is_not_sent() -> None:
    """The operator has decided to give it up."""
    made = dead()
    made.redrive(State.DEAD_LETTER, decision=Decision.DROP)

    forced(made)

    assert {} == made.td.counts().get("stray_db", {})


def test_a_held_forced_replay_sends_no_more_than_it_planned() -> None:
    """Rows that were set aside when it was planned stay out of it, even if they have been delivered since."""
    made = Delivery()
    made.map(shop="shop", ill="ill")
    for match in ({"table": "carts"}, {"database": "ill"}):
        made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422, **match))
    made.put(
        envelope("shop", {"views": [row("a")], "carts": [row("b")]}, request_id="a"),
        envelope("ill", {"views": [row("c")]}, request_id="c"),
    )
    made.deliver()
    made.td.lose("shop", "views", 0, LONG)
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.STATUS, status=503))
    event = made.event() | {"forced": {"tag": "lost"}}
    assert made.run(event, 120_000)["batchItemFailures"]
    made.td.faults.clear()
    made.redrive(State.DEAD_LETTER)

    forced(made)

    assert ["a"] == made.ids("shop", "views")
    assert ["b"] == made.ids("shop", "carts")
    assert ["c"] == made.ids("ill", "views")
    assert {} == made.aside()


def test_dead_letters_of_a_revoked_key_do_not_block_other_rows() -> None:
    """A forced replay sends the rows that came to their account by other keys."""
    made = Delivery()
    revoking = Account("shop", revoked_key_ids=frozenset({"k2"}))
    made.redis.hset(KEYS.of("shop"), mapping=revoking.to_fields())
    for key_id, event_id in (("k1", "a"), ("k2", "b")):
        made.put(envelope("shop", {"views": [row(event_id)]}, key_id=key_id, request_id=event_id))
    made.deliver()
    made.td.lose("shop", "views", 0, LONG)

    forced(made)

    assert ["a"] == made.ids("shop", "views")


def test_a_repeated_forced_replay_leaves_its_own_dead_letters_alone() -> None:
    """It has planned them already, and does not send them again."""
    made = Delivery()
    made.map(shop="shop")
    made.put(envelope("shop", {"views": [row("a")]}))
    made.deliver()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422))
    forced(made)
    made.td.faults.clear()
    forced(made)

    assert {"shop/views/0": ("dead_letter", "http_422", 1)} == made.aside()
    assert ["a"] == made.ids("shop", "views")


@pytest.mark.xdist_group("ops")
def test_the_command_omits_dead_letters(sluice: Sluice, tmp_path: Path) -> None:
    """A replay succeeds without them; once they are redriven, it includes them."""
    sluice.produce("later", "later_rows", "a")
    until(lambda: any(one["account"] == "later" for one in sluice.json("status --local")["aside"]))
    line = "replay --local --force --tag {} --account later --yes"
    before = sluice.run(line.format("early"))
    file = tmp_path / "accounts.yaml"
    exported = sluice.run("accounts export --local").stdout
    file.write_text(f"{exported}\nlater: {{database: later_db}}\n")
    applied = sluice.run(f"accounts apply --local --yes {file}")
    sluice.json("redrive --local --kind dead --account later")
    sluice.lose("later_db", "later_rows")
    after = sluice.run(line.format("later"))
    file.write_text(exported)
    sluice.run(f"accounts apply --local --yes {file}")

    assert (0, 0, 0) == (before.exit_code, applied.exit_code, after.exit_code)
    assert ["a"] == sluice.rows("later_db", "later_rows")
