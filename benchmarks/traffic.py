"""Generates rows as sites send them, and Lambda events that contain them. They are the same in every run."""

import random
from collections.abc import Iterator
from itertools import count, islice
from typing import Any
from uuid import UUID

from tests.support.delivery import Delivery, envelope, member, row

EVENT_ROWS = 10_000
"""Rows in an event: about as many as fit into Lambda's 6 MB with ten rows per envelope."""

_AGENTS = [
    f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 {name}/537.36"
    for system in ("X11; Linux x86_64", "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7")
    for version in range(140, 150)
    for name in ("Safari", "Mobile Safari")
]
_PLACES = ("search.example", "news.example", "mail.example", "www.shop.example")
_BEGINNING = 1_795_000_000


def rows() -> Iterator[dict[str, Any]]:
    """Yield page views endlessly. Their ids are random, so that gzip compresses them no better than real rows."""
    dice = random.Random(1)
    visitors = [str(UUID(int=dice.getrandbits(128), version=4)) for _ in range(500)]
    for number in count():
        page = dice.randrange(2000)
        yield row(
            str(UUID(int=dice.getrandbits(128), version=4)),
            _BEGINNING + number // 50,
            td_ip=f"203.0.113.{dice.randrange(256)}",
            td_user_agent=dice.choice(_AGENTS),
            td_url=f"https://www.shop.example/p/{page}?sort=price&session={dice.getrandbits(40):010x}",
            td_referrer=f"https://{dice.choice(_PLACES)}/",
            td_title=f"Product {page}",
            td_client_id=dice.choice(visitors),
            position=dice.randrange(40),
            price=dice.randrange(100_000) / 100,
        )


def event(size: int, groups: int = 1, per_envelope: int = 10) -> dict[str, Any]:
    """Return a Lambda event in which the envelopes of several accounts alternate.

    Args:
        size: the number of rows.
        groups: the number of accounts, each with one table.
        per_envelope: the number of rows in an envelope.
    """
    delivery = Delivery()
    source = islice(rows(), size)
    number = 0
    while part := list(islice(source, per_envelope)):
        request = f"0190f1a2-7a5b-7c3d-8e4f-{number:012d}"
        delivery.put(envelope(account(number % groups), {"pageviews": part}, request_id=request))
        number += 1
    return {"Records": [member(record) for record in delivery.records()]}


def account(group: int) -> str:
    """Return an account's name."""
    return f"account_{group}"


def database(group: int) -> str:
    """Return the name of the account's database."""
    return f"database_{group}"


def later(made: dict[str, Any], batch: int) -> dict[str, Any]:
    """Return the event as a later batch, with sequence numbers above those of earlier batches."""
    return {"Records": [_later(record, batch) for record in made["Records"]]}


def _later(record: dict[str, Any], batch: int) -> dict[str, Any]:
    content = record["kinesis"]
    number = str(int(content["sequenceNumber"]) + (batch << 80))
    shard = record["eventID"].partition(":")[0]
    return record | {"kinesis": content | {"sequenceNumber": number}, "eventID": f"{shard}:{number}"}
