"""The recorded events in events/."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from doubles.aws_errors import client_error
from ingest.refusal import ANSWERS, RequestCode
from local import record, recording
from local.accounts import ACCOUNTS, SIGNING_SECRETS
from tests.support import chromium
from tests.support.delivery import KEYS as REDIS_KEYS
from tests.support.delivery import SHARD, Delivery
from tests.support.ingest import Site
from worker import account_store
from worker.states import State

HTTP = recording.EVENTS / "http"
KINESIS = recording.EVENTS / "kinesis"
NAMES = sorted(path.stem for path in HTTP.iterdir())

REFUSED: Mapping[str, RequestCode] = {
    "mistake-decompressed-body-too-large": "body_too_large",
    "mistake-empty-body": "invalid_json",
    "mistake-forged-key": "invalid_key",
    # read as plain text: some proxies decompress a body and keep the header
    "mistake-invalid-gzip": "invalid_json",
    "mistake-invalid-json": "invalid_json",
    "mistake-no-key": "missing_key",
    "mistake-pixel-with-a-forged-key": "invalid_key",
    "mistake-pixel-without-key": "missing_key",
    "mistake-pixel-without-table": "missing_table",
    "mistake-too-many-events": "too_many_events",
    "mistake-unknown-path": "not_found",
    "mistake-unknown-secret": "invalid_key",
    "mistake-wrong-method": "method_not_allowed",
}
"""Why a recorded request is refused, if it is."""
OTHERS = {"mistake-nested-too-deeply": 400, "preflight": 204}

_SHARD = {
    "ShardId": SHARD,
    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)},
    "SequenceNumberRange": {"StartingSequenceNumber": "0"},
}
"""The shard that the events were recorded from."""


def load(path: Path) -> dict[str, Any]:
    """Return an event."""
    event: dict[str, Any] = json.loads(path.read_text())
    return event


def delivered(name: str) -> Delivery:
    """Return a worker and its environment after it has processed a recorded event completely."""
    delivery = Delivery()
    event = load(KINESIS / f"{name}.json")
    delivery.clock.time = event["Records"][-1]["kinesis"]["approximateArrivalTimestamp"]
    delivery.kinesis.list_shards = lambda **_: {"Shards": [_SHARD]}
    refused = client_error("InvalidArgumentException", "GetShardIterator")  # of another stream's record
    delivery.kinesis.before["get_shard_iterator"] = Mock(side_effect=refused)
    account_store.apply(delivery.redis, REDIS_KEYS, ACCOUNTS, 0)
    assert delivery.run(event, 120_000) == {"batchItemFailures": []}
    return delivery


@pytest.mark.parametrize("name", NAMES)
def test_http_events_are_answered_as_documented(name: str) -> None:
    """The ingest answers each recorded event with the expected code and its status, or with 200."""
    event = load(HTTP / f"{name}.json")
    site = Site()
    site.secret.text = json.dumps(SIGNING_SECRETS)
    site.clock.time = event["requestContext"]["timeEpoch"] / 1000

    answer = site.send(event)

    code = REFUSED.get(name)
    assert (ANSWERS[code].status if code else OTHERS.get(name, 200), code) == (answer.status, answer.code)


VISITED = {
    "field_app": {"notes"},
    "media": {"article_views", "reactions", "sections_read"},
    "shop": {"carts", "engagement", "orders", "pageviews", "searches"},
}


@pytest.mark.parametrize(
    ("name", "tables", "imports", "dead"),
    [
        ("visits", VISITED, None, {}),
        (
            "mistakes",
            {"shop": {"mistakes"}},
            None,
            {"unknown_account": 2, "disabled_account": 1, "revoked_key": 1},
        ),
        ("other-producers", {"field_app": {"imports"}}, 4, {"undecodable": 3, "missing_table": 1}),
    ],
)
def test_kinesis_events_become_rows(
    name: str, tables: Mapping[str, set[str]], imports: int | None, dead: Mapping[str, int]
) -> None:
    """Each row is in its account's database, or dead if the account may not send or nothing can be read; none blocks the shard."""
    delivery = delivered(name)
    reasons: Counter[str] = Counter()
    for _state, reason, count in delivery.chunks(State.DEAD).values():
        reasons[reason] += count
    counts = delivery.td.counts()

    assert (tables, dead) == ({database: set(rows) for database, rows in counts.items()}, reasons)
    assert imports == counts.get("field_app", {}).get("imports")


@pytest.mark.xdist_group("stack")
def test_a_new_recording_has_the_same_kinds_of_events(tmp_path: Path) -> None:
    """It is made from visits and mistakes in Chromium."""
    chromium.path()

    record.record(tmp_path, 0, lambda _: None)

    assert {path.stem for path in (tmp_path / "http").iterdir()} == set(NAMES)
    assert {request.step for request in recording.read(tmp_path / "requests.jsonl")} >= {
        request.step for request in recording.read() if request.step.startswith("mistake")
    }
    assert len(load(tmp_path / "kinesis" / "other-producers.json")["Records"]) == 5
