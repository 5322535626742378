"""DNS records: dnspython's own resolver, with a name server in memory."""

from typing import Any
from unittest.mock import Mock

import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.nameserver import AddressAndPortNameserver
from dns.resolver import LifetimeTimeout, Resolver

from ops.deploy.preflight.dns_records import look_up

ZONE = {"NS": ["ns-2.awsdns-02.net.", "ns-1.awsdns-01.org."], "CAA": ['0 issue "letsencrypt.org"']}


class Zone(AddressAndPortNameserver):
    """Answers for example.com. It fails for names that begin with `failing`."""

    def kind(self) -> str:
        """Return what it is."""
        return "in memory"

    def query(self, request: dns.message.QueryMessage, *_: Any, **__: Any) -> dns.message.Message:
        """Answer one query."""
        answer = dns.message.make_response(request)
        (question,) = request.question
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        if name.startswith("failing"):
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name != "example.com.":
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif kind in ZONE:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *ZONE[kind]))
        return dns.message.from_wire(answer.to_wire())


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("example.com", "NS", sorted(ZONE["NS"])),
        ("example.com", "CAA", ZONE["CAA"]),
        ("example.com", "MX", []),
        ("nowhere.example", "NS", []),
        ("failing.example.com", "NS", None),
        ("not..a.name", "NS", None),
    ],
)
def test_records_are_returned_as_text(name: str, kind: str, expected: list[str] | None) -> None:
    """A name without such records, or that does not exist, has none. A failure is not an empty answer."""
    resolver = Resolver(configure=False)
    resolver.nameservers = [Zone("192.0.2.1", 53)]
    found = look_up(name, kind, resolver)

    assert expected == (found if found is None else sorted(found))


def test_an_unanswered_question_is_not_an_empty_answer() -> None:
    """The preflight then says that DNS does not answer. It waits for seconds."""
    silent = Mock(resolve=Mock(side_effect=LifetimeTimeout(timeout=5.0, errors=[])))

    assert look_up("example.com", "NS", silent) is None
    assert 5.0 == silent.resolve.call_args.kwargs["lifetime"]
