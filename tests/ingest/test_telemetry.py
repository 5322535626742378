"""What the ingest logs and counts, and what it must never log."""

import json

from doubles.aws_errors import client_error
from shared.telemetry import INGEST_COUNTERS, METRICS, QUIET_SECONDS
from tests.support.ingest import KEY, Site, http_event
from tests.support.telemetry import Output


def test_nothing_personal_is_written() -> None:
    """Logs and metrics contain no key, address, path, query, header or body, whatever goes wrong."""
    site = Site()
    handler, clock = site.handler, site.clock
    output = Output(clock)
    secret = "PERSONAL"
    for part in (handler, handler._intake, site.stream, site.stream._overflow, site.keyring):
        part._telemetry = output.telemetry  # type: ignore[attr-defined]  # they all have it
    headers = {
        "user-agent": secret,
        "referer": f"https://{secret}.example",
        "authorization": f"Bearer {secret}",
        "cookie": secret,
        "x-forwarded-for": secret,
    }

    def send(method: str, path: str, query: str = "", body: bytes | None = None, **more: str) -> None:
        event = http_event(method, path, query, headers | more, body)
        event["requestContext"]["http"]["sourceIp"] = secret
        with output.telemetry.invocation(None):
            handler(event, None)
        clock.time += QUIET_SECONDS

    send("GET", f"/{secret}", secret)
    send("POST", "/v1/events", "", b'{"a": "' + secret.encode())
    send("POST", "/v1/events", "", b'[{"table": "PERSONAL"}, "PERSONAL"]', authorization=f"Bearer {KEY}")
    send("GET", "/pixel.gif", f"k={KEY}&t={secret}&{secret}={secret}")
    send("GET", "/pixel.gif", f"k={secret}&t=pageviews")
    site.kinesis.faults = [
        RuntimeError(secret),
        client_error("InternalFailure", "PutRecord", secret, 500),
    ] * 2
    site.sqs.faults, site.sqs.sticky = [client_error("InternalFailure", "SendMessage", secret, 500)], True
    site.secrets.faults = [client_error("AccessDenied", "GetSecretValue", secret)]
    send("GET", "/pixel.gif", f"k={KEY}&t=pageviews&a={secret}")
    send("GET", "/pixel.gif", f"k={KEY}&t=pageviews&a={secret}")
    clock.time += 1000
    send("GET", "/pixel.gif", f"k={KEY}&t=pageviews&a={secret}")

    assert {
        ("INFO", "refused"),
        ("WARNING", "refused"),
        ("ERROR", "unexpected exception"),
        ("WARNING", "the stream did not acknowledge a put"),
        ("WARNING", "the overflow queue did not store an envelope"),
        ("WARNING", "the signing secrets cannot be read"),
    } == {(line["level"], line["message"]) for line in output.log()}
    assert {*INGEST_COUNTERS, *METRICS} >= {
        name for line in output.metrics() for name in line if name[0].isupper()
    }
    for hidden in (secret, KEY, "first secret"):
        assert hidden not in json.dumps(output.lines())
