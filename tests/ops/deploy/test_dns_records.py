"""DNS records, as dnspython answers, or does not."""

from typing import Any

import dns.message
import dns.rdata
import pytest
from dns.resolver import NXDOMAIN, LifetimeTimeout, NoAnswer

from ops.deploy.preflight.dns_records import look_up

ZONE = {
    "NS": ["ns-2.awsdns-02.net.", "ns-1.awsdns-01.org."],
    "CAA": ['0 issue "letsencrypt.org"'],
}


class Resolver:
    """A resolver that knows the records of example.com. Names that begin with `silent` get no answer in time."""

    def resolve(self, name: str, kind: str, lifetime: float) -> Any:
        """Return the records, or raise what dnspython raises."""
        if name.startswith("silent"):
            raise LifetimeTimeout(timeout=lifetime, errors=[])
        if name != "example.com":
            raise NXDOMAIN
        if kind not in ZONE:
            raise NoAnswer(response=dns.message.make_query(name, kind))
        return [dns.rdata.from_text("IN", kind, record) for record in ZONE[kind]]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("example.com", "NS", ZONE["NS"]),
        ("example.com", "CAA", ZONE["CAA"]),
        ("example.com", "MX", []),
        ("nowhere.example", "NS", []),
        ("silent.example.com", "NS", None),
    ],
)
def test_records_are_returned_as_text(name: str, kind: str, expected: list[str] | None) -> None:
    """A name without such records, or that does not exist, has none. An unanswered question is not an empty answer."""
    resolver: Any = Resolver()

    assert expected == look_up(name, kind, resolver)
