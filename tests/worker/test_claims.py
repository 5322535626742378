"""Claims: of all copies of an envelope on the stream, only one counts."""

from copy import deepcopy
from dataclasses import replace
from itertools import batched
from typing import Any

import pytest

from shared.errors import HeldError, ShardUnreadableError
from tests.support.delivery import (
    BUCKET,
    SHARD,
    STREAM,
    Delivery,
    envelope,
    lose_answer,
    once,
    other_sandbox,
    row,
    shops,
)
from tests.support.spans import span
from worker.chain import ChainId, Owner
from worker.claims import LATE_SECONDS, MOST_LOOKUPS, Claims
from worker.ledger import MOST_CLAIMS_WITH_APPEND, Claim, Claiming, Gap, worklist_key
from worker.record import START, Records, decode, number

DAY = 86_400.0
OTHER = "shardId-000000000001"
AT = 1_700_000_000.0
"""When the envelopes were received, and when most records arrive."""


def copy(name: str, claim: int = 1) -> bytes:
    """Return an envelope that may be on the stream more than once."""
    return envelope("shop", {"views": [row(name)]}, request_id=name, claim=claim)


def records(*data: bytes, begin: int = 1, at: float = AT) -> Records:
    """Return records with these bytes, numbered from `begin`."""
    return Records.of([decode(one, SHARD, number(str(n)), at) for n, one in enumerate(data, begin)])


class Made:
    """Claims over a ledger in memory."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.ledger, self.clock = self.delivery.ledger, self.delivery.clock
        self.claims: Claims = self.delivery.wiring.claims
        self.chain = self.delivery.wiring.shards.chain(SHARD)
        self.other = replace(self.chain, shard=OTHER)

    def decide(self, given: Records, chain: ChainId | None = None, gap: Gap | None = None) -> Any:
        """Decide about records of a chain, at its end or in a gap."""
        chain = chain or self.chain
        return self.claims.decide(given, gap or Gap(chain, START))

    def counted(
        self, given: Records, chain: ChainId | None = None, **more: Any
    ) -> tuple[list[str], list[str]]:
        """Return the numbers of the records that are decided, and of those that do not count."""
        decided = self.decide(given, chain, **more)
        numbers = [one[3:] for one in decided.records.numbers]
        return numbers, [numbers[position] for position in sorted(decided.uncounted)]

    def claimed(self, owner: Owner) -> None:
        """Claim the envelope q for a record."""
        self.ledger.claim({"q": owner}, 10**7)

    def append(self, **changes: Any) -> None:
        """Append a span."""
        self.ledger.append(span(**changes, settled=True))


@pytest.fixture
def made() -> Made:
    """Return claims over an empty ledger."""
    return Made()


def test_the_first_of_several_copies_in_a_batch_counts(made: Made) -> None:
    """Only the lowest number claims, so the others add nothing to the request."""
    made.delivery.dynamodb.calls.clear()
    batch = records(copy("q"), copy("r"), copy("q"), copy("s", 0), copy("q"))

    assert (["1", "2", "3", "4", "5"], ["3", "5"]) == made.counted(batch)
    assert ["batch_execute_statement"] == made.delivery.dynamodb.calls


def test_a_redelivered_record_keeps_its_claim(made: Made) -> None:
    """The result is the same however often it is decided, at its chain's end or in a gap of it, where another could take the claim over."""
    gap, me = Gap(made.chain.before(START), START, number("9")), Owner(made.chain, number("1"))
    for where in (None, None, gap, None):
        assert (["1", "2"], ["2"]) == made.counted(records(copy("q"), copy("q")), gap=where)
    assert {"q": Claiming(me, me)} == made.decide(records(copy("q")), gap=gap).with_append


@pytest.mark.parametrize(
    ("late", "latest", "must"),
    [
        (0, 0, False),
        (LATE_SECONDS, 0, False),
        (LATE_SECONDS + 0.001, 0, True),
        (0, AT + LATE_SECONDS, False),
        (0, AT + LATE_SECONDS + 0.001, True),
    ],
)
def test_a_late_record_must_own_a_claim(made: Made, late: float, latest: float, must: bool) -> None:
    """It is late by its own arrival, or by the latest before it in its chain, whatever is beside it: it may have been put again meanwhile."""
    fresh = envelope("shop", {"views": [row("f")]}, received_at=round(max(AT + late, latest) * 1000))
    batch = records(copy("q", 0), fresh, at=AT + late)
    decided = made.decide(batch, gap=Gap(made.chain, START, latest=round(latest * 1000)))

    assert [must, False] == list(map(bool, decided.records.claims))
    assert must is ("q" in made.ledger.claims(["q"]))


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
    ("at", "decided", "copies"), [(1, ["1", "2", "3"], ["2"]), (2, ["1", "2", "3", "4"], ["2"])]
)
def test_an_undecided_claim_ends_the_span(made: Made, at: int, decided: list[str], copies: list[str]) -> None:
    """The records before it are decided; it and the records behind it wait: which copy counts is never guessed."""
    batch = records(copy("q"), copy("q"), copy("x", 0), copy("r"), copy("s"))
    throttle(made, at)

    assert (decided, copies) == made.counted(batch)
    throttle(made, 0)
    with pytest.raises(HeldError, match="which copy of an envelope counts"):
        made.decide(batch)


def test_every_record_in_a_gap_owns_a_claim(made: Made) -> None:
    """It is made with the append: a claim of somebody who dies before it would count for nobody."""
    batch = records(copy("q", 0), b'{"account":"shop","events":[{"table":"views"}]}', b"junk")
    decided = made.decide(batch, gap=Gap(made.chain.within(START), START, number("9")))
    first, second = (Owner(made.chain, number(n)) for n in "12")

    assert {"q": Claiming(first), f"json#{number('2')}": Claiming(second)} == decided.with_append
    assert {} == made.ledger.claims(["q"])


@pytest.mark.parametrize("in_gap", [True, False])
def test_a_span_makes_only_as_many_claims_as_a_transaction_takes(made: Made, in_gap: bool) -> None:
    """The others follow in the next span, in a gap as well as behind records that were claimed and passed over."""
    ids = [f"q{n}" for n in range(MOST_CLAIMS_WITH_APPEND + 5)]
    owners = {} if in_gap else {one: Owner(made.chain, number(str(n))) for n, one in enumerate(ids)}
    for some in batched(owners.items(), 25, strict=False):
        made.ledger.claim(dict(some), 10**7)
    gap = Gap(made.chain.before(START), START, number("999")) if in_gap else None
    decided = made.decide(records(*map(copy, ids), begin=200), gap=gap)

    assert MOST_CLAIMS_WITH_APPEND == len(decided.records) == len(decided.with_append)


def test_a_claim_waits_for_its_owner(made: Made) -> None:
    """The owner's record may still come, so its copy does not count. Who waits for whom is kept for watermarks."""
    owner = Owner(made.chain, number("5"))
    made.claimed(owner)
    decided = made.decide(records(copy("q")), made.other)

    assert (frozenset((0,)), {number("1"): ("q", owner)}) == (decided.uncounted, decided.owners)
    made.append(chain=made.chain, first=number("5"), last=number("5"))
    assert {} == made.decide(records(copy("q")), made.other).owners


def test_an_owner_that_the_chain_has_passed_over_loses_its_claim(made: Made) -> None:
    """It can be planned only in a gap, where it must claim again. The claim is taken over with the append."""
    owner = Owner(made.chain, number("5"))
    made.claimed(owner)
    made.append(chain=made.chain, first=number("9"), last=number("9"))
    decided = made.decide(records(copy("q")), made.other)

    assert {"q": Claiming(Owner(made.other, number("1")), owner)} == decided.with_append
    assert {"q": Claim(owner)} == made.ledger.claims(["q"])


def test_one_of_two_copies_that_were_passed_over_counts_whichever_had_claimed(made: Made) -> None:
    """The lower one takes the claim over from the other, which is decided after it; or makes it, if nobody had one."""
    made.append(chain=made.chain, first=number("9"), last=number("9"))
    gap = Gap(made.chain.before(START), START, number("9"))

    assert (["1", "2"], ["2"]) == made.counted(records(copy("q"), copy("q")), gap=gap)
    made.claimed(Owner(made.chain, number("2")))
    assert (["1", "2"], ["2"]) == made.counted(records(copy("q"), copy("q")), gap=gap)


def test_an_owner_that_this_append_passes_over_loses_its_claim(made: Made) -> None:
    """The batch begins behind it."""
    made.claimed(Owner(made.chain, number("5")))

    assert (["8"], []) == made.counted(records(copy("q"), begin=8))
    assert (["3"], ["3"]) == made.counted(records(copy("q"), begin=3))


def test_only_two_listings_without_its_shard_free_a_claim(made: Made) -> None:
    """One is not enough, and a missing answer does not mean that a shard is gone."""
    made.claimed(Owner(made.chain, number("5")))
    client = made.delivery.kinesis.client
    listed = client.list_shards(StreamName=STREAM)
    lacking = deepcopy(listed)
    lacking["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"] = "7"
    answers = iter((lacking, listed))
    client.list_shards = lambda **_: next(answers)

    assert (["1"], ["1"]) == made.counted(records(copy("q")), made.other)
    made.delivery.kinesis.before["list_shards"] = lambda _: lose_answer()
    with pytest.raises(ShardUnreadableError):
        made.decide(records(copy("q")), made.other)


@pytest.mark.parametrize("where", ["chain", "before", "within", "fixed"])
def test_the_claim_of_a_planned_record_is_never_taken_over(made: Made, where: str) -> None:
    """Its rows belong to a span, of the shard or of a gap, whatever happened to stream and retention since; even if none is found."""
    chain = made.chain if where == "fixed" else replace(made.chain, start="1")
    owner = Owner(chain, number("5"))
    if where == "fixed":
        made.ledger.append_with(span(chain=made.other), {"q": Claiming(owner)}, 10**8)
    else:
        if where != "chain":
            first = "9" if where == "before" else "2"
            made.append(chain=chain, first=number(first), last=number("9"))
            chain = getattr(chain, where)(START)
        made.append(chain=chain, first=number("5"), last=number("5"))
        made.claimed(owner)
    made.clock.sleep(400 * DAY)

    assert (["8"], ["8"]) == made.counted(records(copy("q"), begin=8))


@pytest.mark.parametrize("loss", ["deleted", "swept", "damaged"])
def test_a_copy_of_what_no_index_shows_any_more_does_not_count(loss: str) -> None:
    """It neither becomes a second row nor holds the records behind it. A damaged index holds it for an hour: the owner may yet come."""
    made, is_damaged = shops(copy("q"), copy("r", 0), copy("s", 0)), loss == "damaged"
    made.deliver()
    [one], [name] = made.spans(), made.span_objects()
    if loss == "swept":
        made.ledger.update(replace(one, object=None))
    if is_damaged:
        made.s3.put_object(Bucket=BUCKET, Key=name, Body=b"x")
    else:
        made.s3.delete_object(Bucket=BUCKET, Key=name)
    first, _ = made.put(copy("q"), copy("t", 0))
    if is_damaged:
        assert first == made.start().deliver(3)
        made.clock.sleep(3600)

    assert made.start().deliver(3) is None
    assert ["q", "r", "s", "t"] == sorted(made.ids("shop_db", "views"))
    assert ["q"] * is_damaged == list(made.spans()[-1].copies)


def test_copies_of_many_envelopes_of_a_span_cost_one_look() -> None:
    """A client may send a whole day's requests again: their owners are looked for span by span."""
    made = shops()
    names = [f"q{number}" for number in range(20)]
    made.put(*map(copy, names))
    made.deliver()
    made.put(*map(copy, names))
    made.start().wiring.guard.check()
    made.dynamodb.calls.clear()
    made.s3.calls.clear()

    assert made.deliver(20) is None
    assert (2, 1) == (made.dynamodb.calls.count("query"), made.s3.calls.count("get_object"))


def test_more_copies_than_can_be_looked_for_in_time_end_the_span(made: Made) -> None:
    """So that an invocation makes headway before it times out."""
    owners = {f"q{one}": Owner(made.other, number(str(one))) for one in range(MOST_LOOKUPS + 1)}
    for some in batched(owners.items(), 25, strict=False):
        made.ledger.claim(dict(some), 10**7)
    given = records(copy("r", 0), *map(copy, owners))

    assert given.numbers[: MOST_LOOKUPS + 1] == made.decide(given).records.numbers


def test_only_one_copy_takes_over_the_claim_of_a_stream_that_is_gone(made: Made) -> None:
    """It is the first copy of a batch. Two listings show neither the shard nor a child of it; they serve all copies."""
    owners = {f"q{one}": Owner(replace(made.other, start="1"), number(str(one))) for one in range(4)}
    made.ledger.claim(owners, 10**7)
    made.delivery.kinesis.calls.clear()

    batch = records(*map(copy, [*owners, *owners]))
    assert ([str(n) for n in range(1, 9)], ["5", "6", "7", "8"]) == made.counted(batch)
    assert 2 == made.delivery.kinesis.calls.count("list_shards")


def test_a_claim_outlives_every_copy() -> None:
    """Senders retry for 30 days, the queue keeps messages for 14, and the stream keeps records for its own retention."""
    made = shops(copy("replayed", 0), copy("live"))
    made.deliver(1)
    made.run(made.event() | {"replay": True})
    ttl = str(int(made.clock.now() + 44 * DAY + made.wiring.shards.retention_seconds()))
    items = {item["pk"]["S"]: item for item in made.dynamodb.client.items("ledger")}

    assert [ttl, ttl] == [items[f"put#{one}"]["ttl"]["N"] for one in ("live", "replayed")]


def test_a_span_waits_only_for_the_owners_of_its_own_copies() -> None:
    """A plan that does not fit ends before the others: thousands of them would not fit into the item, and hold the shard."""
    made = shops()
    tables = {f"{number:0>128}": [row(f"e{number}")] for number in range(300)}
    made.put(*(envelope(one, tables, request_id=one) for one in ("shop", "news")), copy("q"), copy("q"))
    owner = Owner(made.wiring.shards.chain(SHARD), number("9" * 56))
    made.ledger.claim({"q": owner}, 10**7)

    assert made.deliver() is None
    assert [1, 3] == [span.records for span in made.spans()]
    assert [{}, {"q": owner}] == [span.copies for span in made.spans()]


def test_a_copy_that_is_claimed_while_another_is_appended_in_a_gap_counts_alone() -> None:
    """The transaction that appends the other one fails, and it is decided anew."""
    made = shops(copy("q"), copy("z", 0), copy("q"))
    assert made.deliver(1, 2) is None
    live = other_sandbox(made)
    made.dynamodb.before["transact_write_items"] = once(lambda: live.deliver(2))

    assert {"batchItemFailures": []} == made.run(made.event(0, 1) | {"replay": True})
    assert ["z", "q"] == made.ids("shop_db", "views")


@pytest.mark.parametrize(
    ("days", "then", "awaited"), [(7.9, "", ["q"]), (8.1, "", []), (0, "taken over", []), (0, "planned", [])]
)
def test_no_copy_waits_for_its_owner_in_vain(days: float, then: str, awaited: list[str]) -> None:
    """Its span leaves the worklist: the owner is planned, or never will be, or another record's rows count. Until then, an alarm counts it."""
    made = shops(copy("q"))
    made.kinesis.increase_stream_retention_period(StreamName=STREAM, RetentionPeriodHours=168)
    owner = Owner(made.wiring.shards.chain(SHARD), number("9" * 56))
    made.ledger.claim({"q": owner}, 10**7)
    assert made.deliver() is None
    [one] = made.spans()
    if then == "planned":
        made.ledger.append(span(chain=owner.chain, after=one.last, first=owner.number, last=owner.number))
    elif then:
        other = span(settled=True)
        made.ledger.append_with(other, {"q": Claiming(Owner(other.chain, other.first), owner)}, 10**7)
    made.clock.sleep(days * DAY)
    made.send()

    found = made.ledger.get(one.place)
    assert found is not None
    assert awaited == list(found.copies) == ["q"] * (worklist_key(found) != "")
    assert awaited == ["q"] * (made.telemetry.gauges["OldestWaitingSeconds"] > 0)


def test_a_span_with_many_copies_costs_few_looks_at_claims() -> None:
    """The sender looks in every run, as long as an owner is in no span."""
    made = shops()
    chain = made.wiring.shards.chain(SHARD)
    owners = {f"q{n}": Owner(chain, number(str(10**56 - n - 1))) for n in range(25)}
    made.ledger.claim(owners, 10**7)
    made.put(*map(copy, owners))
    assert made.deliver() is None
    made.dynamodb.calls.clear()
    made.send()

    # one for the claims, one for the age of the oldest waiting row
    assert (25, 2) == (len(made.spans()[0].copies), made.dynamodb.calls.count("batch_get_item"))
