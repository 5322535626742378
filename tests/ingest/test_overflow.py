"""Envelopes that the stream did not acknowledge go to the overflow queue."""

from base64 import b64encode
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ReadTimeoutError

from doubles.aws_errors import client_error
from ingest.overflow import CLIENT_OPTIONS, LONGEST_SECONDS
from shared.envelope import Envelope, TableRows
from tests.support.ingest import NOTICES_URL, QUEUE_URL, Site

NOT_STORED = "the overflow queue did not store an envelope"
DOWN = client_error("InternalFailure", "SendMessage", status=500)


def site(*faults: Any) -> Site:
    """Return a site whose queue fails so."""
    made = Site()
    made.sqs.faults = list(faults)
    return made


def send(made: Site, claim: int = 0, *, refused: bool = False) -> bool:
    """Send an envelope."""
    return made.stream._overflow.send(an_envelope(claim), "shop/3", refused=refused)


def an_envelope(claim: int = 0) -> Envelope:
    """Return an envelope with one row."""
    return Envelope("shop", "k1", 1, "r0", claim, (TableRows("pageviews", 1, b"row"),))


@pytest.mark.parametrize(
    ("claim", "refused", "marks", "delay"),
    [
        (0, True, {"refused": {"DataType": "String", "StringValue": "true"}}, {"DelaySeconds": 0}),
        (1, False, {}, {"DelaySeconds": 0}),
        (0, False, {}, {}),
    ],
    ids=["refused", "claim", "in doubt"],
)
def test_a_message_has_everything_that_the_drainer_needs(
    claim: int, refused: bool, marks: dict[str, Any], delay: dict[str, int]
) -> None:
    """It has the envelope, the partition key and the mark of a definite rejection; only one in doubt is delayed."""
    made = Site()

    assert send(made, claim, refused=refused)
    attributes = {"partition_key": {"DataType": "String", "StringValue": "shop/3"}, **marks}
    body = b64encode(an_envelope(claim).encode()).decode()
    message = {"QueueUrl": QUEUE_URL, "MessageBody": body, "MessageAttributes": attributes, **delay}
    assert [message] == made.queue.messages
    assert ([], {}) == (made.telemetry.lines, made.telemetry.counts)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (DOWN, "InternalFailure"),
        (ClientError({}, "SendMessage"), "Unknown"),
        (ReadTimeoutError(endpoint_url=QUEUE_URL), "ReadTimeoutError"),
        (NoCredentialsError(), "NoCredentialsError"),
        ({"message": "<html>"}, None),
        ({"MessageId": None}, None),
    ],
    ids=repr,
)
def test_a_failure_is_not_counted_and_logged_if_the_client_raises(fault: Any, code: str | None) -> None:
    """The line has the service's code or the exception's name. A response without a message id may be a proxy's page."""
    made = site(fault)

    assert not send(made)
    assert [("WARNING", NOT_STORED, {"code": code})] * (code is not None) == made.telemetry.lines
    assert {} == made.telemetry.counts


def test_the_client_times_out_quickly_and_tries_twice() -> None:
    """The queue is the last resort, but a visitor is waiting."""
    assert {"connect_timeout": 0.5, "read_timeout": 0.5, "attempts": 2} == CLIENT_OPTIONS
    assert 2 * 2 * (0.5 + 0.5) == LONGEST_SECONDS


def test_a_notice_precedes_the_first_envelope_of_each_minute() -> None:
    """If the clock is set back, another notice is sent. A notice has a body, because SQS requires one."""
    made = Site()
    for pause in (0, 0, 59, 1, -10):
        made.clock.time += pause
        send(made)
    order = [arguments["QueueUrl"] for _, arguments in made.sqs.calls]

    later = [NOTICES_URL, QUEUE_URL]
    assert [*later, QUEUE_URL, QUEUE_URL, *later, *later] == order
    assert all(notice["MessageBody"] for notice in made.queue.notices)


def test_no_envelope_is_sent_without_a_notice() -> None:
    """Nobody would know of the envelope; the next one tries to send a notice again."""
    made = site(DOWN)

    assert [False, True] == [send(made), send(made)]
    assert (1, 1) == (len(made.queue.messages), len(made.queue.notices))
