"""The ingest takes a visitor's address from trusted proxies and from nobody else."""

import json
from dataclasses import MISSING, fields
from typing import Any

import pytest

from shared.settings import IngestSettings
from tests.support.ingest import SECRETS, Site

GATEWAY_SAW = "192.0.2.7"
SECRET = "a secret of the distribution"


def site(trusted: str, secret: str | None = SECRET) -> Site:
    """Return a site that trusts these proxies."""
    required = {one.metadata["name"]: "x" for one in fields(IngestSettings) if one.default is MISSING}
    settings = IngestSettings.from_environment({**required, "TRUSTED_PROXIES": trusted})
    made = Site(trusted_proxies=settings.trusted_proxies)
    if secret is not None:
        made.secret.text = json.dumps(SECRETS | {".proxy": secret})
    return made


def address(made: Site, forwarded: str | None, **headers: str) -> Any:
    """Return the stored address for a request with this header, to which the gateway appends the address it saw."""
    sent = headers if forwarded is None else {**headers, "x_forwarded_for": f"{forwarded}, {GATEWAY_SAW}"}
    assert 200 == made.pixel("a=1", **sent).status
    return made.row()["td_ip"]


@pytest.mark.parametrize(
    ("trusted", "forwarded", "expected"),
    [
        ("", "198.51.100.1", GATEWAY_SAW),
        ("203.0.113.0/24", "198.51.100.1", GATEWAY_SAW),
        ("192.0.2.7", None, GATEWAY_SAW),
        ("192.0.2.7", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.0/24", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.7", "9.9.9.9, 198.51.100.1", "198.51.100.1"),
        ("192.0.2.7, 198.51.100.0/24", "203.0.113.9, 198.51.100.1", "203.0.113.9"),
        ("192.0.2.7,198.51.100.0/24", "198.51.100.2, 198.51.100.1", "198.51.100.2"),
        ("192.0.2.7, 198.51.100.0/24", "203.0.113.9, ::ffff:198.51.100.1", "203.0.113.9"),
        ("::ffff:192.0.2.7, ::ffff:198.51.100.0/120", "203.0.113.9, ::ffff:198.51.100.1", "203.0.113.9"),
        ("192.0.2.7", "2001:db8::1", "2001:db8::1"),
        ("192.0.2.7", "198.51.100.1, unknown", GATEWAY_SAW),
        ("192.0.2.7", "<script>", GATEWAY_SAW),
        ("192.0.2.7", "", GATEWAY_SAW),
        ("2001:db8::/32", "198.51.100.1", GATEWAY_SAW),
        ("cloudfront", "198.51.100.1", GATEWAY_SAW),
    ],
)
def test_only_trusted_proxies_are_believed(trusted: str, forwarded: str | None, expected: str) -> None:
    """The header is read from its end, as long as each address is that of a trusted proxy."""
    assert expected == address(site(trusted), forwarded)


@pytest.mark.parametrize(
    ("secret", "sent", "expected"),
    [
        (SECRET, SECRET, "198.51.100.1"),
        (SECRET, "", GATEWAY_SAW),
        (SECRET, SECRET[:-1], GATEWAY_SAW),
        (SECRET, "é", GATEWAY_SAW),
        (None, "", GATEWAY_SAW),
        ("", "", GATEWAY_SAW),
    ],
)
def test_cloudfront_is_trusted_by_its_secret(secret: str | None, sent: str, expected: str) -> None:
    """With it, the address before CloudFront's own is used, not what the visitor sent before it. Anyone can send the header."""
    made = site("cloudfront", secret)

    assert expected == address(made, "9.9.9.9, 198.51.100.1", x_sluice_proxy=sent)


def test_every_path_works_behind_the_first_party_prefix() -> None:
    """A site's own CDN may pass on the prefix `/c`."""
    made = site("")

    answer = made.get("/c/pixel.gif", "k=x")

    assert (401, "invalid_key") == (answer.status, answer.code)
    paths = "/c/health", "/c//health/ready", "/c/c/health", "/chealth"
    assert [200, 200, 404, 404] == [made.get(path).status for path in paths]
