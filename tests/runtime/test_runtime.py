"""The built functions in Lambda's real runtime, one sandbox each, with AWS, Redis and Treasure Data beside them."""

import json
from base64 import b64decode
from io import BytesIO

import msgpack
import pytest

from doubles.tcp_proxy import TcpProxy
from doubles.treasure_data import TreasureData
from local import functions
from local.resources import Resources
from shared import envelope
from tests.support.sandboxes import Start, an_envelope, on_stream, recorded, stream_event
from tests.support.sluice import until

pytestmark = pytest.mark.xdist_group("runtime")


def test_recorded_requests_are_accounted_for(start: Start, aws: Resources) -> None:
    """No recorded request gets a 5xx, and every event that a response calls accepted is on the stream."""
    ingest = start(functions.INGEST)
    answers = {name: ingest.invoke(event) for name, event in recorded("http").items()}
    accepted = 0
    for name, answer in answers.items():
        assert answer["statusCode"] < 500, name
        assert name.startswith("mistake-") or answer["statusCode"] < 300, name
        if answer["headers"].get("content-type") == "image/gif":
            accepted += answer["statusCode"] == 200
        elif answer.get("body"):
            accepted += json.loads(answer["body"]).get("accepted", 0)
    made = [envelope.decode(data) for data in on_stream(aws)]
    rows = [row for one in made for table in one.tables for row in msgpack.Unpacker(BytesIO(table.rows))]

    assert (200, True) == (answers["pixel"]["statusCode"], answers["pixel"]["isBase64Encoded"])
    assert b64decode(answers["pixel"]["body"]).startswith(b"GIF89a")
    assert accepted == sum(one.row_count for one in made) == len(rows)
    assert "autumn tea" in {row.get("campaign") for row in rows}


def test_delivery_goes_on_after_a_timeout(start: Start, aws: Resources, treasure_data: TreasureData) -> None:
    """Lambda kills a worker that hangs and reports it in plain text; a new process delivers the batch once."""
    event = stream_event(aws, an_envelope("r-3", "/three"))
    with TcpProxy(aws.endpoint) as proxy:
        worker = start(functions.WORKER, endpoint=proxy.url, timeout=5)
        proxy.hanging = True
        assert "Task timed out after 5.00 seconds" == worker.invoke(event)
        proxy.hanging = False
        # a busy machine may need several tries
        until(lambda: worker.invoke(event) == {"batchItemFailures": []})

    assert ["/three"] == [row["page"] for row in treasure_data.rows("shop", "pageviews")]
