"""Batch ids: a retry with the same events produces the same envelopes."""

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from doubles.aws_errors import client_error
from ingest import batch as batches
from ingest.batch import Batch
from shared import rows
from shared.envelope import MAX_ENVELOPE_BYTES, Envelope
from shared.write_key import WriteKey
from tests.support import json_values
from tests.support.ingest import KEY, SECRETS, Answer, Site, gzipped, http_event, rows_of

EVENT = {"table": "pageviews", "n": 1}
LARGE = [EVENT | {"n": n, "text": "x" * 100_000} for n in range(9)]
NOW = 1_764_000_000_000


def send(
    site: Site, events: list[Any], ip: str = "192.0.2.7", headers: dict[str, str] | None = None, **said: Any
) -> Answer:
    """Send a batch from the given address, with additional headers and members."""
    text = json.dumps({"batch_id": "b1", "events": events, **said})
    body = gzipped(text.replace("NaN", "null").replace("Infinity", "1e999").encode())
    event = http_event("POST", "/v1/events", f"k={KEY}", headers or {}, body)
    event["requestContext"]["http"]["sourceIp"] = ip
    return site.send(event)


def named(site: Site) -> list[tuple[str, list[Any]]]:
    """Return the request id of each envelope on the stream, and the `n` of its rows."""
    return [(item.request_id, [row.get("n") for _, row in rows_of(item)]) for item in site.envelopes()]


def ids(items: list[Envelope]) -> list[str]:
    """Return the envelopes' ids."""
    return [item.request_id for item in items]


def test_the_batch_id_may_be_a_header() -> None:
    """The header `idempotency-key` gives the same request id as the body's `batch_id`, and takes precedence."""
    site = Site()
    send(site, [EVENT])
    send(site, [EVENT], headers={"idempotency-key": "b1"}, batch_id="other")
    send(site, [EVENT], headers={"idempotency-key": '"b1"'})
    site.post([EVENT], idempotency_key="b1")

    assert 1 == len(set(ids(site.envelopes())))


@pytest.mark.parametrize("batch", ["", "x" * 65, 7, [], {}])
def test_a_batch_id_is_a_string_of_1_to_64_characters(batch: Any) -> None:
    """Any other id rejects the request: if it were ignored, retries would create duplicates."""
    assert "invalid_batch_id" == send(Site(), [EVENT], batch_id=batch).code


def test_all_envelopes_are_stored_or_the_request_fails() -> None:
    """If neither stream nor queue stores an envelope, the response is 503, and the sender can retry everything."""
    site = Site()
    throttled = {"ErrorCode": "InternalFailure"}
    site.kinesis.faults = [{"Records": [{"SequenceNumber": "1"}, throttled]}]
    site.sqs.faults = [client_error("InternalError", "SendMessage", status=500)]

    answer = send(site, LARGE)

    assert (503, "stream_unavailable", "5") == (answer.status, answer.code, answer.headers["retry-after"])
    assert 200 == send(site, LARGE).status


agents = st.sampled_from(["UA", "Googlebot/2.1", "ContextualBot é" + "é" * 400, "x" * 9_000])
surroundings = st.fixed_dictionaries(
    {
        "ip": st.sampled_from(["192.0.2.7", "2001:db8:85a3:1234:5678:8a2e:370:7334", "unknown"]),
        "headers": st.fixed_dictionaries({}, optional={"user-agent": agents, "sec-gpc": st.just("1")}),
        "sent_at": st.sampled_from([None, NOW // 1000, NOW // 1000 - 5_000, "odd"]),
    }
)
policies = st.fixed_dictionaries(
    {
        "visitor_ip": st.sampled_from(["keep", "truncate", "drop"]),
        "bots": st.sampled_from(["mark", "keep"]),
        "dropped_columns": st.sampled_from([(), ("td_user_agent", "text")]),
        "hashed_columns": st.sampled_from([(), ("text",)]),
    }
)
odd_events = st.one_of(
    st.just(EVENT),
    st.just({"no": "table"}),
    st.just(EVENT | {"text": "x" * 262_200}),
    st.builds(lambda n, one: EVENT | {"text": n * one}, st.integers(0, 130_000), st.sampled_from('xé"')),
    st.builds(lambda columns: EVENT | {f"c{n}": 0.5 for n in range(columns)}, st.integers(0, 520)),
    json_values.events,
    json_values.values,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(odd_events, min_size=1, max_size=12), surroundings, surroundings, policies)
def test_a_retry_has_the_same_envelopes(
    events: list[Any], once: dict[str, Any], again: dict[str, Any], policy: dict[str, Any]
) -> None:
    """A retry hours later, from another address and under another policy, puts the same claims, and gets the same response."""
    events = [event | {"n": n} if isinstance(event, dict) else event for n, event in enumerate(events)]
    first, second = Site(), Site(**policy)
    second.clock.sleep(50_000)

    answers = [send(first, events, **once), send(second, events, **again)]

    assume(answers[0].code != "body_too_large")
    assert answers[0].json == answers[1].json
    assert named(first) == named(second)
    assert {1} == {item.claim for item in first.envelopes()}
    assert (1, []) == (len(first.kinesis.calls), first.queue.messages)
    assert len(set(ids(first.envelopes()))) == len(first.envelopes())
    assert all(len(item.encode()) <= MAX_ENVELOPE_BYTES for item in (*first.envelopes(), *second.envelopes()))


@settings(max_examples=60, deadline=None)
@given(st.lists(odd_events, min_size=1, max_size=12), st.data())
def test_borders_depend_on_all_events_of_the_request(events: list[Any], data: st.DataObject) -> None:
    """Envelopes cover all events in order, a small request in one, and the same events even if a rule now rejects one of them."""
    everything = {index: ("pageviews", bytes([index])) for index in range(len(events))}
    some = {index: row for index, row in everything.items() if data.draw(st.booleans())}

    def covered(encoded: dict[int, Any]) -> list[tuple[int, str]]:
        made = Batch(events, id="b1").claims(encoded, WriteKey("shop", "k1"), NOW)
        return [(index, item.request_id) for item in made for index in item.tables[0].rows]

    whole = covered(everything)
    assert list(everything) == [index for index, _ in whole]
    assert [one for one in whole if one[0] in some] == covered(some)
    if sum(len(rows.text_of(event).encode(errors="replace")) for event in events) < 500_000:
        assert 1 == len({request_id for _, request_id in whole})


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        odd_events,
        json_values.events,
        st.dictionaries(json_values.names, json_values.scalars, min_size=10, max_size=30),
        st.just({chr(0x100 + n): 0.5 for n in range(500)}),  # all become `_`, `__2`, `__3` …
        st.just({f"V{'v' * n}": 2**63 for n in range(300)}),
        st.just({"time": "\0" * 1000, "event_id": [1.5], "td_ip": None}),
    ),
    surroundings,
    st.sampled_from([(), ("_", "td_ip", "td_user_agent", "a")]),
)
def test_no_row_is_larger_than_estimated(event: Any, around: dict[str, Any], hashed: tuple[str, ...]) -> None:
    """Borders depend on events alone, so the estimate of a row's size must never be too low."""
    site = Site(hashed_columns=hashed)
    site.secret.text = json.dumps(SECRETS | {".hash": "key"})
    body = json.loads(json.dumps(event).replace("NaN", "null").replace("Infinity", "1e999"))
    sent = body | {"table": "t" * 128} if isinstance(body, dict) else body

    send(site, [sent], **around)

    for item in site.envelopes():
        most = batches._max_bytes(sent, rows.text_of(sent).encode(errors="replace"))
        assert len(item.encode()) - 100 < most


@settings(max_examples=60, deadline=None)
@given(st.lists(odd_events, min_size=1, max_size=8), odd_events, st.data())
def test_other_events_have_other_request_ids(events: list[Any], other: Any, data: st.DataObject) -> None:
    """If an event is added, removed, moved or changed, or account or table differ, every envelope gets a new request id."""
    place = data.draw(st.integers(0, len(events) - 1))
    before, after = events[:place], events[place + 1 :]
    changes = [[*before, *after], [*before, other, *after], [*before, other, *events[place:]]]
    changed = data.draw(st.sampled_from(changes) | st.permutations(events))
    same = [rows.text_of(event) for event in events] == [rows.text_of(event) for event in changed]

    def request_ids(sent: list[Any], account: str = "shop", table: str = "t") -> set[str]:
        encoded = dict.fromkeys(range(len(sent)), ("pageviews", b"\x80"))
        return set(ids(list(Batch(sent, table, id="b1").claims(encoded, WriteKey(account, "k1"), NOW))))

    old, new = request_ids(events), request_ids(changed)

    assert (old == new) if same else not old & new
    assert not old & (request_ids(events, "outlet") | request_ids(events, table="other"))
