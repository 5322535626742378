"""`GET /health/ready` tells uptime checks whether the ingest can store events."""

import pytest
from botocore.exceptions import ReadTimeoutError

from doubles.aws_errors import client_error
from ingest.stream import LOOK_SECONDS, READY_SECONDS
from tests.support.ingest import Answer, Site

DOWN = client_error("InternalFailure", "PutRecord", status=500)


def ready(site: Site) -> Answer:
    """Ask whether the site is ready."""
    return site.get("/health/ready")


def described(status: str) -> dict[str, dict[str, str]]:
    """Return a description of the stream."""
    return {"StreamDescriptionSummary": {"StreamStatus": status}}


def test_a_new_sandbox_describes_the_stream() -> None:
    """It asks Kinesis once, and again only after the answer has expired. A stream accepts records while its shards change."""
    site = Site()
    site.kinesis.faults = [None, described("UPDATING")]

    answers = [ready(site), ready(site), ready(site)]
    site.clock.sleep(LOOK_SECONDS)
    answers.append(ready(site))

    assert [(200, {"status": "ready"}, "no-store")] * 4 == [
        (one.status, one.json, one.headers["cache-control"]) for one in answers
    ]
    assert ["describe_stream_summary"] * 2 == [operation for operation, _ in site.kinesis.calls]
    assert {} == site.telemetry.counts


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        (client_error("AccessDeniedException", "DescribeStreamSummary"), ["AccessDeniedException"]),
        (ReadTimeoutError(endpoint_url="https://kinesis"), ["ReadTimeoutError"]),
        ({}, ["unreadable"]),
        ({"StreamDescriptionSummary": None}, ["unreadable"]),
        (described("DELETING"), []),
        (described("CREATING"), []),
    ],
    ids=repr,
)
def test_a_stream_that_is_not_known_to_be_active_is_not_ready(fault: object, codes: list[str]) -> None:
    """Only the documented response counts; a failed call is logged, but is not an error of the ingest."""
    site = Site()
    site.kinesis.faults = [fault]

    answer = ready(site)

    assert (503, {"status": "unavailable"}, None) == (answer.status, answer.json, answer.code)
    assert {"NotReady": 1} == site.telemetry.counts
    lines = [line for line in site.telemetry.lines if line.message == "the stream cannot be described"]
    assert codes == [line.fields["code"] for line in lines]


def test_an_acknowledged_put_is_enough() -> None:
    """For five minutes after a put, Kinesis is not asked."""
    site = Site()
    site.pixel("a=1")
    site.clock.sleep(READY_SECONDS - 1)
    assert 200 == ready(site).status
    assert ["put_record"] == [operation for operation, _ in site.kinesis.calls]

    site.clock.sleep(1)

    assert 200 == ready(site).status
    assert "describe_stream_summary" == site.kinesis.calls[-1][0]


def test_after_a_failed_put_the_ingest_is_not_ready_until_one_succeeds() -> None:
    """The stream's description does not matter meanwhile. Rejected events are only offered, so they change nothing."""
    site = Site()
    site.kinesis.faults, site.sqs.faults = [DOWN, None, DOWN], [DOWN]

    statuses = []
    for send in (lambda: site.post([{}]), lambda: site.pixel("a=1"), lambda: site.pixel("a=1")):
        send()
        statuses.append(ready(site).status)

    assert [200, 503, 200] == statuses
