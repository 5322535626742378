"""Finds the visitor's address behind proxies that the stack trusts.

Anyone can send an `x-forwarded-for` header. Each proxy appends the address of its own caller, so the list is read from the end, up to
the first address that is not a trusted proxy: the sender may have made up everything before it.

CloudFront has too many addresses to list. Instead, a trusted distribution adds a header with a secret to each request.
"""

import hmac
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from ingest.request import Request

CLOUDFRONT = "cloudfront"
"""Stands for distributions that send the header HEADER."""
HEADER = "x-sluice-proxy"

Network = IPv4Network | IPv6Network


class Proxies:
    """The proxies that a stack trusts.

    Args:
        trusted: networks, and CLOUDFRONT.
        secret: returns the value that HEADER must have, None if there is none.
    """

    def __init__(self, trusted: Sequence[Network | str], secret: Callable[[], str | None]) -> None:
        self._networks = tuple(network for network in trusted if not isinstance(network, str))
        self._cloudfront = CLOUDFRONT in trusted
        self._secret = secret

    def visitor_address(self, request: Request) -> str:
        """Return the nearest address that is not a trusted proxy, or the last one before an entry that is not an address."""
        address = request.ip
        hops = [hop.strip() for hop in request.headers.get("x-forwarded-for", "").split(",")]
        hops.pop()  # the gateway's own entry, `request.ip`
        if self._cloudfront and hops and self._is_cloudfront(request):
            address = _readable(hops.pop()) or address
        while hops and self._is_trusted(address):
            hop = _readable(hops.pop())
            if not hop:
                break
            address = hop
        return address

    def _is_cloudfront(self, request: Request) -> bool:
        secret, sent = self._secret(), request.headers.get(HEADER, "")
        return bool(secret) and hmac.compare_digest(sent.encode(errors="replace"), (secret or "").encode())

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = address_of(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def address_of(text: str) -> IPv4Address | IPv6Address:
    """Parse an address. An IPv4 address in IPv6's notation, as servers with dual-stack sockets write it, becomes IPv4.

    Raises:
        ValueError: it is not an address.
    """
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _readable(hop: str) -> str:
    """Return an address, empty if it is not one."""
    try:
        return str(address_of(hop))
    except ValueError:
        return ""
