"""DNS records other than addresses, from the resolvers of this machine: no domain is sent to anybody else."""

from dns.exception import DNSException
from dns.resolver import NXDOMAIN, NoAnswer, Resolver

_SECONDS = 5.0


def look_up(name: str, kind: str, resolver: Resolver | None = None) -> list[str] | None:
    """Return a name's records of a type such as `NS`, as in a zone file; None if DNS does not answer."""
    try:
        answer = (resolver or Resolver()).resolve(name, kind, lifetime=_SECONDS)
    except (NXDOMAIN, NoAnswer):
        return []
    except DNSException:
        return None
    return [record.to_text() for record in answer]
