"""The ingest under an edge policy: who is refused, and that nobody else ever is."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from doubles.aws_errors import client_error
from ingest.policy import (
    FRESH_SECONDS,
    LOOK_AGAIN_SECONDS,
    PAUSE_SECONDS,
    REFUSING_SECONDS,
    PolicyReader,
    in_background,
)
from ingest.refusal import Refused
from ops.certify_requests import Dialect
from shared import policy, write_key
from shared.policy import PolicyEntry
from tests.support.dialects import DIALECTS, event_of
from tests.support.ingest import BUCKET, SECRETS, Site

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
    """Return the status of a pixel."""
    return site.pixel("a=1").status


def put(site: Site, body: bytes) -> None:
    """Put something else where the policy was."""
    site.bucket.put_object(Bucket=BUCKET, Key=policy.KEY, Body=body)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"shop": DISABLED}, "disabled_account"),
        ({"shop": PolicyEntry(revoked_key_ids=frozenset({"k1"}))}, "revoked_key"),
        ({"other": PolicyEntry()}, "unknown_account"),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_what_the_policy_refuses_gets_403(
    entries: dict[str, PolicyEntry], code: str, dialect: Dialect
) -> None:
    """In every dialect, and nothing goes on the stream."""
    site = Site()
    site.publish(**entries)

    answer = site.send(event_of(dialect))

    assert (403, code, []) == (answer.status, answer.code, site.envelopes())


def test_ordinary_accounts_are_served() -> None:
    """Their other keys, too."""
    site = Site()
    site.publish(shop=PolicyEntry(revoked_key_ids=frozenset({"k2"})))

    assert (200, 1) == (status(site), len(site.envelopes()))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_without_a_policy_all_are_served(fault: Exception) -> None:
    """As they were before there was one; S3 is not asked at each request."""
    site = Site()
    site.publish(shop=DISABLED)
    site.s3.faults, site.s3.sticky = [fault], True

    assert [200] * 3 == [status(site) for _ in range(3)]
    assert 1 == len(site.s3.calls)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_no_policy_refuses_nobody(page: bytes) -> None:
    """Truncated, of the next version, of somebody else."""
    site = Site()
    put(site, page)

    assert 200 == status(site)


@pytest.mark.parametrize("fault", [*FAULTS.values(), *PAGES], ids=str)
def test_a_policy_that_was_read_stays_in_use(fault: Exception | bytes) -> None:
    """Until S3 has not confirmed it for five minutes: then nobody is refused because of it."""
    site = Site()
    site.publish(shop=DISABLED)
    assert 403 == status(site)
    if isinstance(fault, bytes):
        put(site, fault)
    else:
        site.s3.faults, site.s3.sticky = [fault], True

    site.clock.time += REFUSING_SECONDS - 1
    assert 403 == status(site)

    site.clock.time += 1
    assert 200 == status(site)


def test_it_is_read_again_after_a_minute() -> None:
    """Only if it has changed: S3 is told which one is known."""
    site = Site()
    site.publish(shop=PolicyEntry())
    assert 200 == status(site)
    site.clock.time += FRESH_SECONDS
    assert 200 == status(site)
    site.publish(shop=DISABLED)
    site.clock.time += FRESH_SECONDS - 1
    assert 200 == status(site)
    site.clock.time += 1

    assert 403 == status(site)
    assert [False, True, True] == ["IfNoneMatch" in request for _, request in site.s3.calls]


def test_a_failed_read_is_repeated_after_a_pause() -> None:
    """And S3 is left alone until then."""
    site = Site()
    site.publish(shop=DISABLED)
    site.s3.faults = [FAULTS["silent"]]
    statuses = [status(site)]
    for seconds in (PAUSE_SECONDS - 1, 1):
        site.clock.time += seconds
        statuses.append(status(site))

    assert [200, 200, 403] == statuses


def test_an_older_policy_is_ignored() -> None:
    """S3 answers with what was overwritten: nobody is refused whom the newer one serves."""
    site = Site()
    site.publish(shop=PolicyEntry())
    newest = site.bucket.get_object(Bucket=BUCKET, Key=policy.KEY)["Body"].read()
    site.clock.time -= 1
    site.publish(shop=DISABLED)
    older = site.bucket.get_object(Bucket=BUCKET, Key=policy.KEY)["Body"].read()
    put(site, newest)
    assert 200 == status(site)
    put(site, older)
    site.clock.time += FRESH_SECONDS

    assert 200 == status(site)


def test_a_new_account_is_served_at_once() -> None:
    """The policy is read again before an account that it does not name is refused."""
    site = Site()
    site.publish(other=PolicyEntry())
    other = write_key.sign("other", "k1", SECRETS["k1"])
    assert 200 == site.get("/pixel.gif", f"k={other}&t=pageviews").status
    site.clock.time += LOOK_AGAIN_SECONDS
    site.publish(other=PolicyEntry(), shop=PolicyEntry())

    assert 200 == status(site)


def test_an_unknown_account_costs_one_read_a_minute() -> None:
    """However often it is sent for."""
    site = Site()
    site.publish(other=PolicyEntry())

    assert [403] * 5 == [status(site) for _ in range(5)]
    assert 1 == len(site.s3.calls)


def test_an_account_that_cannot_be_looked_for_again_is_served() -> None:
    """A policy that is merely fresh is no proof that the account does not exist."""
    site = Site()
    site.publish(other=PolicyEntry())
    other = write_key.sign("other", "k1", SECRETS["k1"])
    assert 200 == site.get("/pixel.gif", f"k={other}&t=pageviews").status
    site.s3.faults = [FAULTS["silent"]]
    site.clock.time += LOOK_AGAIN_SECONDS

    assert 200 == status(site)


def test_a_request_does_not_wait_for_a_slow_read() -> None:
    """It waits for a moment; what is read later is used by later requests."""
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


def test_reading_in_the_background_can_be_waited_for() -> None:
    """For as long as one likes."""
    done: list[Any] = []
    wait = in_background(lambda: done.append(1))
    wait(10)

    assert [1] == done
