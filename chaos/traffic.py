"""Client requests with numbered events, so that each event can be tracked everywhere."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from gzip import compress
from typing import Any
from urllib.parse import urlencode

from chaos import plans
from doubles.gateway import event_of
from doubles.http_server import Request
from shared.accounts import AccountKeys

SECRETS = {"k1": "first secret of the schedules", "k2": "second secret of the schedules"}
ACCOUNT_KEYS = AccountKeys("ledger")
TABLES = ("pageviews", "clicks", "orders")
_ADDRESSES = "192.0.2.1", "2001:db8:85a3:1234:5678:8a2e:370:7334"
_HEADERS = {"host": "sluice.invalid", "user-agent": "chaos"}
REPEATED = ("batch", "mobile")
"""Dialects whose clients give requests or events an id and may send copies for weeks."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request."""

    at: float  # when it is sent, UNIX seconds
    account: str  # the account of its write key
    visitor: str  # determines the partition key, except for a server's batch, which names no visitor
    # `events`, `batch` (events with a batch id, whose copies arrive for weeks), `mobile` (copies likewise, but grouped differently),
    # `pixel`, or `stream` (a JSON record that another producer puts on the stream)
    dialect: str
    events: tuple[tuple[int, str], ...]  # number and table of each event
    weight: int = 0  # bytes of filling in each event
    strays: int = 0  # one in this many events strays from the account's tracking plan; 0 without a plan

    def documents(self) -> list[dict[str, Any]]:
        """Return the events as a client sends them."""
        documents = [self._document(number, table) for number, table in self.events]
        return [*documents, {"rejected": self.events[0][0]}] if self.has_rejected else documents

    def _document(self, number: int, table: str) -> dict[str, Any]:
        is_named = self.dialect != "batch" or self.events[0][0] % 2
        visitor = {"td_client_id": self.visitor} if is_named else {}
        return {"table": table, "n": number, **self._columns(number), **visitor}

    def _columns(self, number: int) -> dict[str, Any]:
        filling = {"filling": "x" * self.weight} if self.weight else {}
        return filling | (plans.columns(number, self.strays) if self.strays else {})

    @property
    def has_rejected(self) -> bool:
        """Whether the request has one more event, which is rejected because it names no table."""
        return self.dialect in ("events", "batch") and self.events[0][0] % 5 == 0

    def payload(self, key: str, now: float, copy: int = 0) -> dict[str, Any]:
        """Return the event that the HTTP API passes to the ingest for the request, or a copy of it, sent now (UNIX seconds)."""
        if self.dialect == "pixel":
            ((number, table),) = self.events
            query = {"k": key, "t": table, "n": number, "td_client_id": self.visitor, **self._columns(number)}
            target = f"/pixel.gif?{urlencode(query)}"
            request = Request("GET", target, tuple(_HEADERS.items()), source_ip=_ADDRESSES[0])
            return event_of(request, request_id="", now=now)
        document: dict[str, Any] = {"events": self.documents()}
        path, headers = "/v1/events", {"x-write-key": key}
        if self.dialect == "mobile":
            document = {"events": [self._named(event) for event in self._group(copy)]}
            path = f"/{self.account}/{self.events[0][1]}"
            headers = {"x-td-write-key": key, "user-agent": "TD-iOS-SDK/1.2.1 (iOS 18.1)"}
        if self.dialect == "batch":
            first = self.events[0][0]
            document |= {"batch_id": f"batch-{first}"} | ({"sent_at": now} if first % 3 else {})
        body = json.dumps(document).encode()
        headers |= {"content-type": "application/json"}
        if self.weight:
            headers["content-encoding"] = "gzip"
            body = compress(body, 1, mtime=0)
        request = Request("POST", path, tuple((_HEADERS | headers).items()), body, _ADDRESSES[copy % 2])
        return event_of(request, request_id=f"{self.events[0][0]}/{copy}", now=now)

    def _group(self, copy: int) -> tuple[tuple[int, str], ...]:
        """Return the events of a copy of a mobile SDK's request: all at first, then fewer of them in another order."""
        start = copy % len(self.events)
        turned = self.events[start:] + self.events[:start]
        return turned[: max(1, len(turned) - copy)]

    def _named(self, event: tuple[int, str]) -> dict[str, Any]:
        number, _ = event
        columns = self._columns(number)
        return {"uuid": f"event-{number}", "n": number, "td_client_id": self.visitor, **columns}

    def record(self) -> bytes:
        """Return the record that another producer puts on the stream."""
        return json.dumps({"account": self.account, "events": self.documents()}).encode()

    def judged(self, answer: Any, copy: int = 0) -> tuple[tuple[int, ...], tuple[tuple[int, str], ...]]:
        """Return the events that the response to a copy reports as accepted, and those that it rejects with their codes.

        An event that names no table has the number of the request's first event.
        """
        if not isinstance(answer, dict) or answer.get("statusCode") not in (200, 400):
            return (), ()
        numbers = [number for number, _ in self.events]
        if self.dialect == "pixel":
            codes = {0: answer["headers"].get("x-sluice-error", "")}
        elif self.dialect == "mobile":
            numbers = [number for number, _ in self._group(copy)]
            receipts = json.loads(answer["body"]).get("receipts", ())
            codes = {
                index: "" if one["success"] else one["error"]["description"].partition(":")[0]
                for index, one in enumerate(receipts)
            }
        else:
            document = json.loads(answer["body"])
            codes = dict.fromkeys(range(len(numbers)), "") if answer["statusCode"] == 200 else {}
            numbers.append(numbers[0])
            codes |= {one["index"]: one["code"] for one in document.get("rejected", ())}
            if list(codes.values()).count("") != document.get("accepted", 0):
                raise AssertionError(f"the response contradicts itself: {document}")
        accepted = tuple(numbers[index] for index, code in codes.items() if not code)
        rejected = tuple((numbers[index], code) for index, code in codes.items() if code)
        return accepted, tuple(one for one in rejected if one[1] != "stream_unavailable")


def strayed(sent: Sent, every: int) -> Sent:
    """Return the request with one in `every` of its events straying from the account's tracking plan."""
    events = sent.events
    if sent.dialect != "mobile":  # whose events all have one table
        events = tuple(
            (number, plans.SURPRISE if plans.code_of(number, every) == "unplanned_table" else table)
            for number, table in events
        )
    return replace(sent, events=events, strays=every)


def generate(
    chance: random.Random,
    events: int,
    accounts: list[str],
    times: tuple[float, float],
    weights: tuple[int, ...],
    *,
    is_crowded: bool = False,
) -> list[Sent]:
    """Return requests with so many events, single and in bursts, in the order of time, between two moments (UNIX seconds).

    The events of large requests have one of the `weights` as bytes of filling. If it is crowded, requests have one event each and come in a
    few crowds, from all accounts alike.
    """
    begin, end = times
    sent: list[Sent] = []
    # some are busy, some quiet
    shares = [1 if is_crowded else 1 / (1 + index) for index in range(len(accounts))]
    sizes: Sequence[int] = (1, 1, 3, 10, 30)
    counts: Sequence[int] = (1, 1, 1, 2, 3, 8, 20)
    pace, dialects = 0.2, (8, 3, 2, 2, 1)
    if is_crowded:
        sizes, counts, pace, dialects = (events // 2, events), (1,), 0.03, (1, 8, 2, 1, 1)
    number = 0
    while number < events:
        burst = chance.uniform(begin, end)
        for _ in range(chance.choice(sizes)):
            count = min(chance.choice(counts), events - number)
            if not count:
                break
            dialect = chance.choices(("events", "batch", "mobile", "pixel", "stream"), dialects)[0]
            if dialect == "pixel":
                count = 1
            account = chance.choices(accounts, shares)[0]
            tables = TABLES if chance.random() < 0.3 and dialect != "mobile" else (chance.choice(TABLES),)
            numbered = tuple((number + index, chance.choice(tables)) for index in range(count))
            number += count
            weight = chance.choice(weights) if count > 4 else 0
            at = min(end, burst + chance.expovariate(pace))
            visitor = f"v{chance.randrange(40)}"
            weight = weight if dialect not in ("pixel", "stream") else 0
            sent.append(Sent(at, account, visitor, dialect, numbered, weight))
    return sorted(sent, key=lambda one: (one.at, one.events))
