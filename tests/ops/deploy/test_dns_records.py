"""DNS records are read from the machine's own resolvers."""

import socketserver
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.resolver import Resolver

from ops.deploy.preflight.dns_records import look_up

ZONE = {
    ("example.com.", "NS"): ["ns-2.awsdns-02.net.", "ns-1.awsdns-01.org."],
    ("example.com.", "CAA"): ['0 issue "letsencrypt.org"'],
}


class Answers(socketserver.BaseRequestHandler):
    """Answers queries from ZONE. Names that begin with `silent` get no answer."""

    def handle(self) -> None:
        """Answer one query."""
        data, sock = self.request
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        if name.startswith("silent"):
            return
        answer = dns.message.make_response(query)
        if (name, kind) in ZONE:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *ZONE[name, kind]))
        elif not any(name == known for known, _ in ZONE):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        sock.sendto(answer.to_wire(), self.client_address)


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    """A resolver that asks a server of the test."""
    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        made = Resolver(configure=False)
        made.nameservers, made.port, made.timeout = ["127.0.0.1"], server.server_address[1], 0.1
        yield made
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("example.com", "NS", {"ns-1.awsdns-01.org.", "ns-2.awsdns-02.net."}),
        ("example.com", "CAA", {'0 issue "letsencrypt.org"'}),
        ("example.com", "MX", set()),
        ("nowhere.example", "NS", set()),
    ],
)
def test_records_are_returned_as_text(resolver: Resolver, name: str, kind: str, expected: set[str]) -> None:
    """A name without such records, or that does not exist, has none."""
    assert expected == set(look_up(name, kind, resolver) or ())


def test_an_unanswered_question_is_not_an_empty_answer(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preflight then says that DNS does not answer."""
    monkeypatch.setattr("ops.deploy.preflight.dns_records._SECONDS", 0.3)

    assert look_up("silent.example.com", "NS", resolver) is None
