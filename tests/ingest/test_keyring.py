"""Signing secrets are cached, refreshed, and kept while they cannot be read."""

import json
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from doubles.aws_errors import client_error
from ingest.keyring import FRESH_SECONDS, PAUSE_SECONDS
from shared import write_key
from shared.errors import InvalidKeyError, SecretUnavailableError, UnknownSecretError
from tests.support.ingest import KEY, SECRETS, Site

FAILURES = [
    client_error("AccessDeniedException", "GetSecretValue"),
    client_error("InternalServiceError", "GetSecretValue", status=500),
    ConnectTimeoutError(endpoint_url="https://secrets.invalid"),
    {},
    {"SecretString": "[]"},
    {"SecretString": "{}"},
    {"SecretString": '{"k1": ""}'},
    {"SecretString": '{"k1": 7}'},
    {"SecretString": '{".forget": "the key of hashes"}'},
]


@pytest.mark.parametrize("change", [FRESH_SECONDS, -86_400])
def test_secrets_are_cached_for_five_minutes(change: float) -> None:
    """Thousands of requests cause one read. A removed secret's keys become invalid then, or at once if the clock is set back."""
    site = Site()
    for _ in range(3):
        site.clock.time += FRESH_SECONDS / 3 - 1
        assert "shop" == site.keyring.verify(KEY).account
    assert 1 == len(site.secrets.calls)
    site.secret.text = json.dumps({"k2": SECRETS["k2"]})

    for seconds in (change, 1):
        site.clock.time += seconds
        with pytest.raises(UnknownSecretError):
            site.keyring.verify(KEY)
    assert 2 == len(site.secrets.calls)


def test_invalid_keys_cause_few_refreshes() -> None:
    """A key of an unknown secret may be new, so secrets are read again, once in ten seconds; other invalid keys cause no read."""
    site = Site()

    def reads_after(*keys: str) -> int:
        for key in keys:
            with pytest.raises(InvalidKeyError):
                site.keyring.verify(key)
        return len(site.secrets.calls)

    unknown = [write_key.sign("shop", f"x{number}", "anything") for number in range(100)]
    assert 1 == reads_after(*unknown)
    site.secret.text = json.dumps(SECRETS | {"k3": "third secret"})
    site.clock.time += PAUSE_SECONDS
    assert 1 == reads_after(f"{KEY[:-2]}xx", "no key", "shop.k1")

    assert "k3" == site.keyring.verify(write_key.sign("shop", "k3", "third secret")).key_id
    assert 2 == reads_after(*unknown)


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_secrets_stay_in_use_while_they_cannot_be_read(failure: Any) -> None:
    """Cached secrets remain valid for as long as reads fail; one request in ten seconds tries a refresh."""
    site = Site()
    site.keyring.verify(KEY)
    site.secrets.faults, site.secrets.sticky = [failure], True

    for second in range(1, 61):
        site.clock.time += FRESH_SECONDS if second == 1 else 1
        assert "shop" == site.keyring.verify(KEY).account
    assert 1 + 60 // PAUSE_SECONDS == len(site.secrets.calls)
    assert 60 // PAUSE_SECONDS == site.telemetry.counts["KeyringFailures"]

    site.secrets.faults = []
    site.secret.text = json.dumps({"k2": SECRETS["k2"]})
    site.clock.time += PAUSE_SECONDS
    with pytest.raises(UnknownSecretError):
        site.keyring.verify(KEY)


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_without_secrets_clients_are_told_to_retry(failure: Any) -> None:
    """A sandbox that has never read the secrets answers 503, tries once a second, and recovers once a read succeeds."""
    site = Site()
    site.secrets.faults, site.secrets.sticky = [failure], True

    for _ in range(5):
        answer = site.post([{"table": "pageviews"}])
        assert (503, "keys_unavailable", "5") == (answer.status, answer.code, answer.headers["retry-after"])
    assert (1, 5) == (len(site.secrets.calls), site.telemetry.counts["RequestsFailed"])
    with pytest.raises(SecretUnavailableError):
        site.keyring.verify(KEY)

    site.secrets.faults = []
    site.clock.time += 1
    assert 200 == site.post([{"table": "pageviews"}]).status


def test_a_key_is_rejected_after_its_secret_was_replaced() -> None:
    """Keys that were verified before are cached, in limited number, and dropped together with the old secrets."""
    site = Site()
    keys = [write_key.sign("shop", f"k1-{number}", SECRETS["k1"]) for number in range(2500)]
    for key in (*keys, keys[0]):
        assert "shop" == site.keyring.verify(key).account
    assert len(site.keyring._verified) <= 1000
    site.secret.text = json.dumps({"k1": "another secret"})
    site.clock.time += FRESH_SECONDS

    for key in (keys[0], keys[-1]):
        with pytest.raises(InvalidKeyError):
            site.keyring.verify(key)
