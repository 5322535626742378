"""Random requests that a public endpoint may receive, determined by a seed."""

import base64
import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote

from tests.support.dialects import EVENT_ROUTES
from tests.support.ingest import KEY, gzipped, http_event

ROUTES = (
    *EVENT_ROUTES,
    ("POST", "/v1/events"),
    ("GET", "/"),
    ("GET", "/get_cookie_id"),
    ("GET", "/js/v3/global_id"),
)
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT")
NAMES = (
    *("k", "t", "table", "time", "event_id", "td_ip", "td_client_id", "data", "callback", "api_key"),
    *("td_write_key", "td_format", "td_redirect", "td_record_time", "cookie_domain", "td_browser", "a"),
)
TYPES = (
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/vnd.treasuredata.v1+json",
    "application/vnd.treasuredata.v1.single+json",
    "application/vnd.treasuredata.v1.js+json",
)


class Inputs:
    """Draws payload 2.0 events.

    Args:
        seed: the same seed draws the same events.
        texts: strings that break parsers; others are made from them.
    """

    def __init__(self, seed: int, texts: list[str]) -> None:
        self._random = Random(seed)
        self._texts = [*texts, "", KEY, "pageviews", "shop", "1764000000", "1e999", "\ud800", "a" * 3000]
        self._wraps: tuple[Callable[[bytes], bytes], ...] = (
            *(bytes,) * 16,
            gzipped,
            zlib.compress,
            self._mutated,
            lambda data: self._mutated(gzipped(data)),
        )

    def draw(self) -> dict[str, Any]:
        """Return the next event."""
        random = self._random
        method, path = random.choice(ROUTES)
        if random.random() < 0.05:
            method, path = random.choice(METHODS), random.choice((path, self._path()))
        event = http_event(method, path, self._query(), self._headers(), None)
        event["cookies"] = [f"_td_global={self._text()}"] if random.random() < 0.1 else []
        body = random.choice(self._wraps)(self._body())
        event["isBase64Encoded"] = random.random() < 0.9
        event["body"] = (
            base64.b64encode(body).decode() if event["isBase64Encoded"] else body.decode("utf-8", "replace")
        )
        event["requestContext"]["http"]["sourceIp"] = self._rarely("192.0.2.7")
        return event

    def _rarely(self, usual: str) -> str:
        return usual if self._random.random() < 0.9 else self._text()

    def _text(self) -> str:
        random = self._random
        text = random.choice(self._texts)
        if random.random() < 0.3:
            other = random.choice(self._texts)
            text = text[: random.randrange(len(text) + 1)] + other[random.randrange(len(other) + 1) :]
        return text

    def _path(self) -> str:
        return "/" + "/".join(self._text() for _ in range(self._random.randrange(6)))

    def _query(self) -> str:
        random = self._random
        pairs = [f"k={KEY}", f"api_key={KEY}", "t=pageviews"] if random.random() < 0.8 else []
        for _ in range(random.randrange(5)):
            name = random.choice(NAMES) if random.random() < 0.7 else self._text()
            value = self._text()
            if name == "data":
                value = base64.b64encode(self._body()).decode()
            escape = quote if random.random() < 0.8 else str
            pairs.append(
                f"{escape(name.encode(errors='replace').decode())}={escape(value.encode(errors='replace').decode())}"
            )
        random.shuffle(pairs)
        return "&".join(pairs)

    def _headers(self) -> dict[str, str]:
        random = self._random
        headers = {"authorization": f"{random.choice(('TD1', 'Bearer'))} {self._rarely(KEY)}"}
        for name in ("origin", "user-agent", "referer", "x-write-key", "idempotency-key"):
            if random.random() < 0.2:
                headers[name] = self._text()
        if random.random() < 0.5:
            headers["content-type"] = self._rarely(random.choice(TYPES))
        if random.random() < 0.2:
            headers |= {"content-encoding": random.choice(("gzip", "deflate", "br", "")), "sec-gpc": "1"}
        if random.random() < 0.1:
            headers["host"] = self._text()
        return headers

    def _body(self) -> bytes:
        random = self._random
        kind = random.random()
        if kind < 0.2:
            return self._text().encode(errors="surrogatepass")
        value: Any = [self._event() for _ in range(random.randrange(1, 5))]
        if kind < 0.4:
            value = self._event()
        elif kind < 0.6:
            value = {"events": value, "table": self._rarely("pageviews"), "sent_at": self._value(0)}
        elif kind < 0.7:
            value = {"shop.pageviews": value, self._text(): value}
        elif kind < 0.75:
            value = {"records": value, "batch_id": self._text(), "repeat": True}
        data = json.dumps(value).encode()
        return self._mutated(data) if random.random() < 0.2 else data

    def _event(self) -> Any:
        random = self._random
        if random.random() < 0.05:
            return self._value(0)
        event = {"table": self._rarely("pageviews")}
        for _ in range(random.randrange(8)):
            name = random.choice(NAMES) if random.random() < 0.5 else self._text()
            event[name] = self._value(0)
        return event

    def _value(self, depth: int) -> Any:
        random = self._random
        kind = random.randrange(9 if depth < 3 else 7)
        if kind < 3:
            return self._text()
        if kind == 3:
            return random.choice((0, 1, -1, 2**31, 2**53, 2**63, 2**64, 10**30, random.getrandbits(40)))
        if kind == 4:
            return random.choice((0.5, 1e308, float("inf"), float("nan"), -0.0, random.random() * 2e9))
        if kind == 5:
            return random.choice((True, False, None))
        if kind == 6:
            return random.choice(NAMES)
        if kind == 7:
            return [self._value(depth + 1) for _ in range(random.randrange(4))]
        return {self._text(): self._value(depth + 1) for _ in range(random.randrange(4))}

    def _mutated(self, data: bytes) -> bytes:
        random = self._random
        changed = bytearray(data)
        for _ in range(random.randrange(1, 4)):
            if not changed:
                break
            place = random.randrange(len(changed))
            kind = random.randrange(4)
            if kind == 0:
                changed[place] = random.randrange(256)
            elif kind == 1:
                del changed[place : place + random.randrange(1, 9)]
            elif kind == 2:
                changed[place:place] = changed[place : place + random.randrange(1, 9)]
            else:
                del changed[place:]
        return bytes(changed)
