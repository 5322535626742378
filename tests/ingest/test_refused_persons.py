"""An account's events of a person are refused exactly if `sluice forget` would recognise the person in the event or in its row."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ops.deploy.certify.request_steps import Dialect
from shared import policy
from shared.person_hash import hashed_column, hasher, text_of
from shared.policy import EdgePolicy, PolicyEntry
from shared.write_key import FORGET_KEY, HASH_KEY
from tests.support.dialects import DIALECTS, event_of
from tests.support.ingest import BUCKET, SECRETS, Site
from worker.forget.person import Person, Persons

KEY = b"forget-key"
TEXTS = ["p@example.com", "P@example.com", "192.0.2.0", "192.0.2.9"]
values = st.sampled_from([*TEXTS, 7, 7.0, True, None, ["p"], {"p": 1}, 2**70])
columns = st.sampled_from(["email", "Email", "e mail", "td_ip", "page"])
events = st.dictionaries(columns, values, max_size=4)


def site_that_refuses(column: str, *values: Any, account: str = "shop", **settings: Any) -> Site:
    """Return a site whose policy refuses persons of an account, plain and as HashedColumns makes of them."""
    site = Site(**settings)
    site.secret.text = json.dumps({**SECRETS, HASH_KEY: "hash-key", FORGET_KEY: KEY.decode()})
    document = EdgePolicy.parse(policy.encode({"shop": PolicyEntry(), "other": PolicyEntry()}, 1))
    refused = {account: {column: b"".join(_hashes(column, *values))}}
    site.bucket.put_object(Bucket=BUCKET, Key=policy.KEY, Body=policy.with_refused(document, refused, 1))
    return site


def _hashes(column: str, *values: Any) -> list[bytes]:
    texts = [one for value in values for one in (text_of(value), hashed_column(value, b"hash-key").encode())]
    return list(map(hasher(KEY, "shop", column), texts))


@given(
    st.lists(events, min_size=1, max_size=4),
    st.sampled_from(["email", "e_mail", "td_ip"]),
    st.sampled_from([*TEXTS, "7", '["p"]', "None"]),
    st.sampled_from([{}, {"hashed_columns": ("email", "td_ip")}, {"visitor_ip": "truncate"}]),
)
@example([{"email": None}], "email", "None", {})
def test_events_of_a_person_are_refused_and_others_beside_them_accepted(
    sent: list[dict[str, Any]], column: str, value: str, settings: dict[str, Any]
) -> None:
    """Whether the ingest hashes or truncates the column, or adds it."""
    body = [{"table": "pageviews", "event_id": str(number), **event} for number, event in enumerate(sent)]
    served = Site(**settings)
    served.secret.text = json.dumps({**SECRETS, HASH_KEY: "hash-key"})
    served.post(body)
    person = Person("1", "shop", column, tuple(_hashes(column, value)), 1 << 62)
    matcher = Persons(KEY, (person,)).of("shop")
    assert matcher is not None
    site = site_that_refuses(column, value, **settings)

    answer = site.post(body).json

    theirs = {
        index
        for index, (event, (_, row)) in enumerate(zip(body, served.rows(), strict=True))
        if matcher.request(row)
        or any(matcher.request_of_event(json.dumps({name: one}).encode()) for name, one in event.items())
    }
    rejected = [(one["index"], one["code"]) for one in answer["rejected"]]
    assert [(index, "refused_person") for index in sorted(theirs)] == rejected
    stored = [row["event_id"] for _, row in site.rows()]
    assert [str(index) for index in range(len(body)) if index not in theirs] == stored


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_no_dialect_accepts_or_keeps_an_event_of_a_refused_person(dialect: Dialect) -> None:
    """The visitor's address is refused. No row, no copy of the event and no log line has it."""
    site = site_that_refuses("td_ip", "192.0.2.7")
    served = Site()
    served.send(event_of(dialect))
    has_address = "td_ip" in served.row()

    site.send(event_of(dialect))

    assert has_address == (not site.rows())
    kept = [(event.code, event.original, event.message) for event in site.rejected()]
    assert [("refused_person", b"", "")] * has_address == kept
    assert "192.0.2.7" not in str(site.telemetry.lines)


def test_an_event_with_another_fault_is_refused_without_a_copy() -> None:
    """Copies are checked as they are kept: a person who is known by a truncated address is recognised only then."""
    site = site_that_refuses("td_ip", "192.0.2.0", "192.0.2.7", visitor_ip="truncate")
    addresses = ["192.0.2.7", "192.0.2.9", "203.0.113.9"]

    answer = site.post([{"table": "7", "td_ip": address, "page": 1} for address in addresses])

    codes = ["refused_person", "invalid_table", "invalid_table"]
    assert codes == [one["code"] for one in answer.json["rejected"]]
    kept = [b"", b"{}", b'{"table":"7","td_ip":"203.0.113.0","page":1}']
    assert kept == [event.original for event in site.rejected()]


@pytest.mark.parametrize(("account", "has_key"), [("other", True), ("shop", False)])
def test_nobody_else_is_refused(account: str, has_key: bool) -> None:
    """Another account's persons are not this one's, and without the key nobody is recognised."""
    site = site_that_refuses("email", "p@example.com", account=account)
    if not has_key:
        site.secret.text = json.dumps(SECRETS)

    assert 200 == site.post([{"table": "pageviews", "email": "p@example.com"}]).status
