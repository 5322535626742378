"""The ingest as Powertools' documentation suggests: a resolver with routes, a verified key, rows, one put, metrics."""

import hmac
import time
import uuid
from base64 import urlsafe_b64encode
from typing import Any

import boto3
import msgpack
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
SECRETS = {"k1": b"a secret for benchmarks"}

app = APIGatewayHttpResolver()
kinesis = boto3.client("kinesis")
logger = Logger()
metrics = Metrics()


def account_of(key: str) -> str:
    """Verify a write key and return its account."""
    account, key_id, mac = key.split(".")
    digest = hmac.digest(SECRETS[key_id], f"{account}.{key_id}".encode(), "sha256")[:16]
    if not hmac.compare_digest(urlsafe_b64encode(digest).rstrip(b"=").decode(), mac):
        raise PermissionError
    return account


def put(account: str, events: list[dict[str, Any]]) -> None:
    """Put the events on the stream as rows."""
    now = time.time()
    http = app.current_event.request_context.http
    rows = [
        {
            "time": int(now),
            "event_id": str(uuid.uuid4()),
            "received_at": int(now * 1000),
            "td_ip": http.source_ip,
            "td_user_agent": http.user_agent,
        }
        | event
        for event in events
    ]
    data = msgpack.packb((1, account, "k1", int(now * 1000), str(uuid.uuid4()), 0, rows))
    kinesis.put_record(StreamName="events", Data=data, PartitionKey=f"{account}/1")
    metrics.add_metric(name="EventsAccepted", unit="Count", value=len(events))


@app.get("/pixel.gif")
def pixel() -> Response[bytes]:
    """Accept one event from the query string."""
    parameters = dict(app.current_event.query_string_parameters)
    put(account_of(parameters.pop("k")), [parameters])
    return Response(200, "image/gif", GIF, {"cache-control": "no-store"})


@app.post("/v1/events")
def events() -> dict[str, Any]:
    """Accept the events in the body."""
    accepted = app.current_event.json_body["events"]
    put(account_of(app.current_event.headers["x-write-key"]), accepted)
    return {"accepted": len(accepted), "rejected": []}


@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one request."""
    return app.resolve(event, context)
