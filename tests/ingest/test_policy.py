"""The edge policy rejects disabled accounts and revoked keys, and never rejects anyone else."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from ingest.policy import FRESH_SECONDS, LOOK_AGAIN_SECONDS, PAUSE_SECONDS, PolicyReader, in_background
from ingest.refusal import Refused
from ops.deploy.certify.request_steps import Dialect
from shared import policy, write_key
from shared.policy import PolicyEntry
from tests.support.dialects import DIALECTS, event_of
from tests.support.ingest import BUCKET, SECRETS, Site
from tests.support.telemetry import Output

DISABLED = PolicyEntry("disabled")
FAULTS: dict[str, Exception] = {
    "unreachable": EndpointConnectionError(endpoint_url="https://s3"),
    "silent": ReadTimeoutError(endpoint_url="https://s3"),
    "throttled": client_error("SlowDown", "GetObject", status=503),
    "denied": client_error("AccessDenied", "GetObject", status=403),
    "absent": client_error("NoSuchKey", "GetObject", status=404),
}
PAGES = [b"", b"<html>sign in</html>", b"\x93\x01", b"\x93\x02\x01\x01"]


def status(site: Site) -> int:
    """Return the status of the response to a pixel."""
    return site.pixel("a=1").status


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"shop": DISABLED}, "disabled_account"),
        ({"shop": PolicyEntry(revoked_key_ids=frozenset({"k1"}))}, "revoked_key"),
        ({"other": PolicyEntry()}, "unknown_account"),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_rejected_requests_get_403(entries: dict[str, PolicyEntry], code: str, dialect: Dialect) -> None:
    """This holds in every dialect, and nothing is put on the stream."""
    site = Site()
    site.publish(**entries)

    answer = site.send(event_of(dialect))

    assert (403, code, []) == (answer.status, answer.code, site.envelopes())


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_without_a_policy_every_account_is_served(fault: Exception) -> None:
    """If the policy cannot be read, nobody is rejected, and S3 is not asked with each request."""
    site = Site()
    site.publish(shop=DISABLED)
    site.s3.faults, site.s3.sticky = [fault], True

    assert [200] * 3 == [status(site) for _ in range(3)]
    assert 1 == len(site.s3.calls)


@pytest.mark.parametrize("fault", [*FAULTS.values(), *PAGES], ids=str)
def test_a_policy_stays_in_use_for_five_minutes_while_it_cannot_be_read(fault: Exception | bytes) -> None:
    """After five minutes without confirmation from S3, it rejects nobody."""
    site = Site()
    site.publish(shop=DISABLED)
    assert 403 == status(site)
    if isinstance(fault, bytes):
        site.bucket.put_object(Bucket=BUCKET, Key=policy.KEY, Body=fault)
    else:
        site.s3.faults, site.s3.sticky = [fault], True

    for seconds in (150, 149):
        site.clock.time += seconds
        assert 403 == status(site)

    site.clock.time += 1
    assert 200 == status(site)


def test_the_policy_is_read_again_after_a_minute() -> None:
    """The request is conditional, so S3 sends the policy only if it has changed."""
    site = Site()
    site.publish(shop=PolicyEntry(revoked_key_ids=frozenset({"k2"})))  # not the key that is used
    assert 200 == status(site)
    site.clock.time += FRESH_SECONDS
    assert 200 == status(site)
    site.publish(shop=DISABLED)
    site.clock.time += FRESH_SECONDS - 1
    assert 200 == status(site)
    site.clock.time += 1

    assert 403 == status(site)
    assert [False, True, True] == ["IfNoneMatch" in request for _, request in site.s3.calls]


def test_an_older_policy_is_ignored() -> None:
    """If S3 returns an overwritten version, nobody is rejected whom the newer version serves."""
    site = Site()
    site.publish(shop=PolicyEntry())
    assert 200 == status(site)
    site.clock.time -= 1
    site.publish(shop=DISABLED)
    site.clock.time += 1 + FRESH_SECONDS

    assert 200 == status(site)


@pytest.mark.parametrize(
    ("is_added", "fault", "statuses"),
    [
        (True, None, [200, 200, 200]),
        (False, None, [403, 403, 403]),
        (False, FAULTS["silent"], [200, 403, 403]),
    ],
    ids=["added", "missing", "unreadable"],
)
def test_it_is_read_for_new_accounts(is_added: bool, fault: Exception | None, statuses: list[int]) -> None:
    """The account may be new, so it is refused only if a second read does not have it either; that is not repeated."""
    site = Site()
    site.publish(other=PolicyEntry())
    other = write_key.sign("other", "k1", SECRETS["k1"])
    assert 200 == site.get("/pixel.gif", f"k={other}&t=pageviews").status
    site.clock.time += LOOK_AGAIN_SECONDS
    if is_added:
        site.publish(other=PolicyEntry(), shop=PolicyEntry())
    site.s3.faults = [fault]

    found = []
    for _ in statuses:
        found.append(status(site))
        site.clock.time += LOOK_AGAIN_SECONDS

    assert statuses == found
    assert 2 + bool(fault) == len(site.s3.calls)


def test_a_read_is_logged_as_part_of_its_request() -> None:
    """It has a thread of its own."""
    output = Output(ManualClock())
    with output.telemetry.invocation(SimpleNamespace(aws_request_id="1a2b")):
        in_background(lambda: output.telemetry.info("read"))(10)

    assert ["1a2b"] == [line["function_request_id"] for line in output.log()]


def test_a_request_does_not_wait_for_a_slow_read() -> None:
    """A request waits for 0.1 s; later requests use the policy once it has been read."""
    site, asked = Site(), threading.Event()
    site.publish(shop=DISABLED)
    jobs: list[Callable[[], None]] = []

    def start(job: Callable[[], None]) -> Callable[[float], None]:
        jobs.append(job)
        return lambda seconds: asked.set() if seconds == 0.1 else None

    key = write_key.WriteKey("shop", "k1")
    reader = PolicyReader(site.bucket, BUCKET, site.clock, site.telemetry, start)
    first = reader.entry(key)
    site.clock.time += PAUSE_SECONDS
    assert (PolicyEntry(), PolicyEntry(), 1, True) == (first, reader.entry(key), len(jobs), asked.is_set())
    jobs[0]()

    with pytest.raises(Refused, match="disabled_account"):
        reader.entry(key)
