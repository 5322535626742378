"""Rejected events travel with the rows of their request and never change a response."""

import json

from doubles.aws_errors import client_error
from ingest.rejected import MAX_BYTES
from shared.envelope import MAX_ENVELOPE_BYTES
from tests.support.ingest import START, Site

GOOD = {"table": "pageviews"}
DOWN = client_error("InternalFailure", "PutRecord", status=500)


def test_rejected_events_are_part_of_the_envelope() -> None:
    """The request is still one record. A rejected event has a table if it names a legal one."""
    site, large = Site(), {"table": "orders"} | {f"c{number}": 1 for number in range(600)}

    site.post([GOOD, 7, large])
    site.post([large])

    copy = ("too_many_columns", "orders", json.dumps(large).encode())
    assert [(1, [(1, "not_an_object", "", b"7"), (2, *copy)]), (0, [(0, *copy)])] == [
        (item.row_count, [event[:4] for event in item.rejected]) for item in site.envelopes()
    ]


def test_privacy_settings_apply_to_rejected_events() -> None:
    """A value that would not be stored in a row is not in the copy either, which is JSON however deep: else nobody is found in it."""
    site, deep = Site(dropped_columns=("email",), visitor_ip="truncate"), "[" * 255 + "]" * 255

    site.post([{"Email": "a@b.example", "td_ip": "198.51.100.77", "td_client_id": "c1", "a": 1}])
    site.post([{"td_client_id": "c1", "a": 1}, 7, {"email": 1, "a": json.loads(deep)}], sec_gpc="1")

    ordinary = [b'{"td_ip":"198.51.100.0","td_client_id":"c1","a":1}', b'{"a":1}', b""]
    assert [*ordinary, b'{"a":%b}' % deep.encode()] == [one.original for one in site.rejected()]


def test_the_copy_of_a_hashed_object_has_the_hash_of_its_row() -> None:
    """Objects that are not hashed stay objects."""
    site = Site(hashed_columns=("user",))
    site.secret.text = '{"k1": "first secret", ".hash": "key"}'
    event = {"user": {"a": 1}, "items": [1]}

    site.post([{"table": "pageviews", **event}, event])

    [copy] = site.rejected()
    assert {"user": site.row()["user"], "items": [1]} == json.loads(copy.original)


def test_the_copy_of_an_event_from_a_wrong_clock_has_the_corrected_time() -> None:
    """Its repair does not know when the request was sent. What is no time stays as it was."""
    site, day_ago = Site(), int(START) - 86_400

    site.post({"sent_at": day_ago, "events": [{"time": day_ago - 9}, {"time": "x"}, {"a": 1}]})

    copies = [json.loads(one.original) for one in site.rejected()]
    assert [{"time": int(START) - 9}, {"time": "x"}, {"a": 1}] == copies


def test_a_flood_is_counted_and_not_kept() -> None:
    """One request adds a limited number of bytes to the stream; events beyond it are only counted, without the response's message."""
    site = Site()

    events = [{"a": 1}, *[{"text": "x" * 100_000}] * 5, 7]
    told = [one["message"] for one in site.post(events).json["rejected"]]

    found = site.rejected()
    assert [True] * 2 + [False] * 4 + [True] == [bool(one.original) for one in found]
    assert sum(len(one.original) for one in found) <= MAX_BYTES
    assert [told[0], told[1], *[""] * 4, told[6]] == [one.message for one in found]


def test_messages_do_not_move_borders() -> None:
    """If the events fit into an envelope but their messages do not, the messages are left out."""
    site = Site()
    events = [{"n": number} for number in range(100)]
    theirs = sum(len(json.dumps(event)) + len("missing_table") + 16 for event in events)
    size = MAX_ENVELOPE_BYTES - 512 - len("pageviews") - 16 - theirs
    *rows, last = [{**GOOD, "text": "x" * 230_000}] * 2 + [GOOD]
    site.post([*rows, last])
    used = sum(len(table.rows) for item in site.envelopes() for table in item.tables)

    site.post([*rows, last | {"text": "x" * (size - used - 10)}, *events])

    item = site.envelopes()[-1]
    assert (3, 100) == (item.row_count, len(item.rejected))
    assert {""} == {one.message for one in item.rejected}
    assert len(item.encode()) <= MAX_ENVELOPE_BYTES


def test_rejected_events_get_their_own_envelope_if_the_last_is_full() -> None:
    """Rows take precedence over rejected events, which never go to the queue."""
    site, events = Site(), [{**GOOD, "text": "x" * 230_000}] * 3 + [{"text": "x" * 100_000}]

    site.post(events)
    site.kinesis.faults, site.kinesis.sticky = [DOWN], True
    site.post(events)

    assert [3] == [item.row_count for item in site.queued()]
    assert [(3, 0), (0, 1)] == [(item.row_count, len(item.rejected)) for item in site.envelopes()]
    assert all(len(item.encode()) <= MAX_ENVELOPE_BYTES for item in site.envelopes())


def test_the_response_does_not_depend_on_storing_rejected_events() -> None:
    """A stream that fails is not offered any for a while, and none go to the queue."""
    site = Site()
    usual = site.post([{}]).json
    site.kinesis.faults, site.kinesis.sticky = [DOWN], True

    assert [usual] * 3 == [site.post([{}]).json for _ in range(3)]
    assert (2, []) == (len(site.kinesis.calls), site.queue.messages)
    site.kinesis.faults = []
    site.clock.sleep(60)
    site.post([{}])
    assert 2 == len(site.rejected())


def test_a_retry_of_rejected_events_has_the_same_request_id() -> None:
    """The rejected events of a batch with an id are therefore counted once."""
    site = Site()
    for _ in range(2):
        site.post({"batch_id": "b", "events": [{}]})
    site.post({"batch_id": "b", "events": [{"a": 1}]})

    first, second, other = site.envelopes()
    assert (1, first.request_id, 1) == (first.claim, second.request_id, second.claim)
    assert other.request_id != first.request_id
