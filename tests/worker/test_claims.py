"""Claims: of all copies of an envelope on the stream, only one counts."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.treasure_data import Action, Fault, Kind
from shared.errors import ShardUnreadableError
from tests.support.delivery import (
    KEYS,
    SHARD,
    STREAM,
    Delivery,
    KilledError,
    envelope,
    is_settling,
    kill,
    lose_answer,
    member,
    once,
    row,
)
from tests.support.spans import CHAIN, span
from worker.chain import ChainId, ClaimOwner
from worker.claims import Claims
from worker.ledger import Claim
from worker.record import Record, decode, number

DAY = 86_400.0
RETENTION = 7 * DAY
OTHER = "shardId-000000000001"


def copy(request_id: str, *ids: str, claim: int = 1, account: str = "shop") -> bytes:
    """Return an envelope that may be on the stream more than once."""
    return envelope(
        account, {"views": [row(one) for one in ids or (request_id,)]}, request_id=request_id, claim=claim
    )


def records(*data: bytes, begin: int = 1) -> list[Record]:
    """Return records with these bytes, numbered from `begin`."""
    return [decode(one, SHARD, number(str(n)), 1_700_000_000.0) for n, one in enumerate(data, begin)]


class Made:
    """Claims over a ledger in memory."""

    def __init__(self) -> None:
        self.delivery = Delivery(retention=RETENTION)
        self.ledger, self.clock = self.delivery.ledger, self.delivery.clock
        self.claims: Claims = self.delivery.wiring.claims

    def decide(self, given: list[Record], chain: ChainId = CHAIN) -> tuple[list[str], list[str]]:
        """Return the numbers of the records that are decided, and of those that do not count."""
        decided, ignored = self.claims.decide(given, chain)
        return [record.number[3:] for record in decided], sorted(one[3:] for one in ignored)


@pytest.fixture
def made() -> Made:
    """Return claims over an empty ledger."""
    return Made()


def test_records_without_claims_cost_no_call(made: Made) -> None:
    """They all count."""
    made.delivery.dynamodb.calls.clear()

    assert (["1", "2"], []) == made.decide(records(copy("q", claim=0), copy("q", claim=0)))
    assert [] == made.delivery.dynamodb.calls


def test_the_first_of_several_copies_in_a_batch_counts(made: Made) -> None:
    """Only the lowest number claims, so the others add nothing to the request."""
    made.delivery.dynamodb.calls.clear()
    batch = records(copy("q"), copy("r"), copy("q"), copy("s", claim=0), copy("q"))

    assert (["1", "2", "3", "4", "5"], ["3", "5"]) == made.decide(batch)
    assert ["batch_execute_statement"] == made.delivery.dynamodb.calls


def test_the_first_claimed_copy_counts_across_shards(made: Made) -> None:
    """This holds days later too, when the stream no longer has the copy that counts."""
    assert (["5"], []) == made.decide(records(copy("q"), begin=5))
    made.ledger.append(span(first=number("5"), last=number("5")))
    made.clock.sleep(30 * DAY)

    assert (["1"], ["1"]) == made.decide(records(copy("q")), replace(CHAIN, shard=OTHER))


def test_a_redelivered_record_keeps_its_claim(made: Made) -> None:
    """The result is the same however often it is decided, from its shard's chain or from a hole of it."""
    for chain in (CHAIN, CHAIN, CHAIN.hole(number("7"))):
        assert (["1", "2"], ["2"]) == made.decide(records(copy("q"), copy("q")), chain)


def test_a_claim_outlives_every_copy(made: Made) -> None:
    """Senders retry for 30 days, the queue keeps messages for 14, and the stream keeps records for its retention."""
    made.decide(records(copy("q")))
    (item,) = made.delivery.dynamodb.client.items("ledger")

    assert {"N": str(int(made.clock.now() + 44 * DAY + RETENTION))} == item["ttl"]
    assert 44 * DAY + RETENTION == made.claims.seconds_kept


def throttle(made: Made, *positions: int) -> None:
    """Make DynamoDB throttle these statements of each batch."""
    client = made.delivery.dynamodb.client
    real = client.batch_execute_statement

    def batch_execute_statement(*, Statements: list[Any]) -> Any:  # noqa: N803 -- boto3's name
        kept = [one for place, one in enumerate(Statements) if place not in positions]
        responses = iter(real(Statements=kept)["Responses"] if kept else [])
        refused = {"Error": {"Code": "ThrottlingError"}}
        return {"Responses": [refused if n in positions else next(responses) for n in range(len(Statements))]}

    client.batch_execute_statement = batch_execute_statement


@pytest.mark.parametrize(
    ("position", "decided", "ignored"),
    [(0, [], []), (1, ["1", "2", "3"], ["2"]), (2, ["1", "2", "3", "4"], ["2"])],
)
def test_an_undecided_claim_ends_the_stretch(
    made: Made, position: int, decided: list[str], ignored: list[str]
) -> None:
    """The records before it are decided; it and the records behind it wait."""
    batch = records(copy("q"), copy("q"), copy("x", claim=0), copy("r"), copy("s"))
    throttle(made, position)

    assert (decided, ignored) == made.decide(batch)


def test_many_claims_are_split_into_several_calls(made: Made) -> None:
    """DynamoDB takes a limited number of statements per call."""
    batch = records(*(copy(f"q{n}") for n in range(60)))
    made.delivery.dynamodb.calls.clear()

    assert ([str(n) for n in range(1, 61)], []) == made.decide(batch)
    assert ["batch_execute_statement"] * 3 == made.delivery.dynamodb.calls


# An owner that was never planned


def claimed(made: Made, owner: ClaimOwner) -> None:
    """Claim the envelope for a record that arrives now."""
    made.ledger.claim({"q": Claim(owner, int(made.clock.now()))}, round(10 * RETENTION))


def current_chain(made: Made) -> ChainId:
    """Return the chain of the stream's shard."""
    return made.delivery.wiring.shards.chain(SHARD)


def owner(chain: ChainId) -> ClaimOwner:
    """Return a record of the chain as an owner."""
    return ClaimOwner.record(chain, number("5"))


OWNER = owner(CHAIN)  # of a stream that no longer exists
COPY = replace(CHAIN, shard=OTHER)
EXPIRED = RETENTION + 1200


@pytest.mark.parametrize(
    ("age", "decided", "ignored"),
    [
        (0.0, ["1"], ["1"]),
        (RETENTION - 1201, ["1"], ["1"]),
        (RETENTION - 1199, [], []),
        (EXPIRED, [], []),
        (EXPIRED + 1, ["1"], []),
    ],
)
def test_the_claim_of_an_expired_record_is_taken_over(
    made: Made, age: float, decided: list[str], ignored: list[str]
) -> None:
    """Before that the record may still come, and while clocks may disagree about it, its copy waits."""
    claimed(made, owner(current_chain(made)))
    made.clock.sleep(age)

    assert (decided, ignored) == made.decide(records(copy("q")), COPY)


def test_a_claim_is_as_old_as_its_owners_record(made: Made) -> None:
    """A record claimed days after its arrival and never planned expires by its arrival; then its copies count."""
    late = [record._replace(arrived_at=made.clock.now()) for record in records(copy("q"))]
    made.clock.sleep(RETENTION - DAY)
    made.decide(late, current_chain(made))
    made.clock.sleep(DAY + 1201)

    assert (["8"], []) == made.decide(records(copy("q"), begin=8), COPY)


def test_the_claim_of_a_deleted_stream_is_taken_over(made: Made) -> None:
    """Nobody reads its records any more. A new stream of the same name has shards that begin elsewhere."""
    claimed(made, OWNER)

    assert (["1"], []) == made.decide(records(copy("q")), COPY)


def test_no_claim_is_taken_over_while_shards_cannot_be_listed(made: Made) -> None:
    """A missing answer does not mean that a shard is gone."""
    claimed(made, OWNER)
    made.delivery.kinesis.before["list_shards"] = lambda _: lose_answer()

    with pytest.raises(ShardUnreadableError):
        made.decide(records(copy("q")), COPY)


@pytest.mark.parametrize("held_by", [CHAIN, CHAIN.hole(number("3"))])
def test_the_claim_of_a_planned_record_is_never_taken_over(made: Made, held_by: ChainId) -> None:
    """Its rows belong to a span, of the shard or of a hole, whatever happened to stream and retention since."""
    if held_by != CHAIN:
        made.ledger.append(span(after=number("3"), first=number("9"), last=number("9")))
    made.ledger.append(span(chain=held_by, first=number("5"), last=number("5")))
    claimed(made, OWNER)
    made.clock.sleep(2 * RETENTION)

    assert (["1"], ["1"]) == made.decide(records(copy("q")), COPY)


@pytest.mark.parametrize("name", ["q", "q#1"])
def test_the_claim_of_a_set_aside_envelope_is_never_taken_over(made: Made, name: str) -> None:
    """Its rows reach Treasure Data without the stream, whatever the request is called."""
    chain = ChainId.overflow(name)
    made.ledger.append(span(chain=chain, first="000", last="000", done=True))
    claimed(made, ClaimOwner(chain))
    made.clock.sleep(2 * RETENTION)

    assert (["1"], ["1"]) == made.decide(records(copy("q")), COPY)


def test_only_one_copy_takes_a_claim_over(made: Made) -> None:
    """It is the first copy of a batch, and of two batches the one that comes first."""
    claimed(made, OWNER)
    there = current_chain(made)
    batch, later = records(copy("q"), copy("q")), records(copy("q"), begin=8)

    assert (["1", "2"], ["2"]) == made.decide(batch, there)
    assert (["8"], ["8"]) == made.decide(later, there)
    assert (["1", "2"], ["2"]) == made.decide(batch, there)


def test_concurrent_takeovers_have_one_winner(made: Made) -> None:
    """A copy that was overtaken between its read and its write does not count."""
    claimed(made, OWNER)
    made.clock.sleep(EXPIRED + 1)
    client = made.delivery.dynamodb
    client.before["update_item"] = once(
        lambda: made.ledger.take_over("q", Claim(ClaimOwner.record(CHAIN, number("8")), 0), OWNER)
    )

    assert (["1"], ["1"]) == made.decide(records(copy("q")), COPY)


# How the worker delivers copies


def delivery(**changes: Any) -> Delivery:
    """Return a delivery with one account."""
    made = Delivery(**changes)
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    return made


def test_copies_are_delivered_once_in_any_order() -> None:
    """The spans' counts include only the rows that count."""
    made = delivery()
    made.put(copy("q", "e1"), copy("r", "e2", claim=0), copy("q", "e1"))
    assert made.deliver(2, 3) is None
    made.start()
    assert made.deliver(0, 3) is None

    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert 2 == sum(sum(one.counts.values()) for one in made.spans())


def test_a_span_of_copies_is_settled_without_an_import() -> None:
    """No row of it counts."""
    made = delivery()
    made.put(copy("q"), copy("q"))
    made.deliver(0, 1)

    assert made.deliver(1, 2) is None
    assert 1 == len(made.td.imports())
    assert [True, True] == [one.done for one in made.spans()]


def test_claims_are_made_before_the_plan() -> None:
    """The plan stores what they decided. A batch costs one more call, and only if it has claims."""
    made = delivery()
    made.put(copy("r", claim=0), copy("q"), copy("q"))
    made.dynamodb.calls.clear()
    made.deliver()

    assert ["query", "batch_execute_statement", "put_item", "update_item"] == made.dynamodb.calls
    assert [frozenset((2,))] == [one.ignored for one in made.spans()]


def forget_claims(made: Delivery) -> None:
    """Delete all claims from the ledger."""
    for item in list(made.dynamodb.client.items("ledger")):
        if item["pk"]["S"].startswith("put#"):
            made.dynamodb.client.delete_item(TableName="ledger", Key={"pk": item["pk"], "sk": item["sk"]})


@pytest.mark.parametrize("begin", [0, 2])
def test_a_planned_span_needs_no_claims(begin: int) -> None:
    """Even with the claims gone, what the plan ignores stays ignored, whichever part of the span a batch has."""
    made = delivery()
    made.put(copy("q", "e1"), copy("q", "e1"), copy("r", "e2"))
    made.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()
    forget_claims(made)
    made.start()
    assert made.deliver(begin) is None

    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert "batch_execute_statement" not in made.dynamodb.calls[-3:]


def test_an_undecided_claim_holds_from_its_record_on() -> None:
    """Records before it are delivered; the batch is retried from the record itself."""
    made = delivery()
    numbers = made.put(copy("r", "e1", claim=0), copy("q", "e2"), copy("s", "e3", claim=0))
    claims = Made()
    claims.delivery = made
    real = made.dynamodb.client.batch_execute_statement
    throttle(claims, 0)
    assert numbers[1] == made.deliver()
    assert ["e1"] == made.ids("shop_db", "views")
    assert {"Holds": 1} == made.telemetry.counts

    made.dynamodb.client.batch_execute_statement = real
    assert made.deliver() is None
    assert ["e1", "e2", "e3"] == made.ids("shop_db", "views")


def test_nothing_is_planned_if_claims_get_no_answer() -> None:
    """Which copy counts is never guessed."""
    made = delivery()
    numbers = made.put(copy("q"))
    made.dynamodb.before["batch_execute_statement"] = lambda _: lose_answer()

    assert numbers[0] == made.deliver()
    assert [] == made.spans()


def test_an_invocation_that_dies_between_claim_and_plan_loses_nothing() -> None:
    """The record is redelivered and owns its claim."""
    made = delivery()
    made.put(copy("q", "e1"))
    made.dynamodb.after["batch_execute_statement"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()
    made.start()

    assert made.deliver() is None
    assert ["e1"] == made.ids("shop_db", "views")


def test_a_record_with_an_unavailable_account_makes_no_claim() -> None:
    """A record that must wait leaves the claim to a copy that need not."""
    made = delivery()
    numbers = made.put(copy("q", account="blog"))
    made.redis.delete(KEYS.sentinel)
    made.dynamodb.calls.clear()

    assert numbers[0] == made.deliver()
    assert "batch_execute_statement" not in made.dynamodb.calls


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 7),
            st.integers(1, 8),
            st.sampled_from(["", "plan", "settle", "claim"]),
        ),
        max_size=10,
    ),
)
def test_copies_on_two_shards_are_delivered_once(
    copies: list[str], invocations: list[tuple[int, int, int, str]]
) -> None:
    """In any batches, overlapping and interrupted ones included, each envelope's rows arrive once."""
    made = delivery()
    made.kinesis.delete_stream(StreamName=STREAM)
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=2)
    for name in copies:
        made.kinesis.put_record(StreamName=STREAM, Data=copy(name), PartitionKey="a")
    half = (len(copies) + 1) // 2
    shards = [
        [member(one, (SHARD, OTHER)[shard]) for one in part]
        for shard, part in enumerate((made.records()[:half], made.records()[half:]))
    ]
    made.td.faults.add(Fault(kind=Kind.CLOSE, action=Action.IMPORT, lands=0, count=1))
    kills = {
        "plan": {"after": {"put_item": once(kill)}},
        "settle": {"before": {"update_item": once(kill, is_settling)}},
        "claim": {"after": {"batch_execute_statement": once(kill)}},
    }
    for shard, begin, size, death in [*invocations, (0, 0, 8, ""), (1, 0, 8, "")]:
        event = {"Records": shards[shard][begin : begin + size]}
        made.dynamodb.before, made.dynamodb.after = {}, {}
        vars(made.dynamodb).update(kills.get(death, {}))
        made.start()
        read_from(made, shards)
        try:
            made.run(event, 120_000)
        except KilledError:
            continue

    assert sorted(set(copies)) == sorted(made.ids("shop_db", "views"))


def read_from(made: Delivery, shards: list[list[dict[str, Any]]]) -> None:
    """Make the worker read each shard's records; the stream in memory has them all on one."""
    names = (SHARD, OTHER)
    found = {names[n]: {one["kinesis"]["sequenceNumber"] for one in part} for n, part in enumerate(shards)}
    original = made.wiring.shards.read

    def read(shard: str, first: str, last: str, expected: int, deadline: Any) -> list[Record]:
        read = original(SHARD, first, last, expected, deadline)
        return [one for one in read if one.number[3:] in found[shard]]

    made.wiring.shards.read = read  # type: ignore[method-assign]  # the stream has one shard
