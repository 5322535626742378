"""Events under a tracking plan are observed, quarantined, or not checked."""

import json

import pytest

from shared.policy import PolicyEntry
from shared.tracking_plan import Mode, TrackingPlan
from tests.support.ingest import Site

TABLES = {
    "pageviews": {"columns": {"title": "string", "td_url": {"type": "string", "required": True}}},
    "purchases": {
        "columns": {
            "amount": {"type": "number", "required": True},
            "email": {"type": "string", "personal": "hash"},
            "phone": {"personal": "drop"},
            "td_ip": {"required": True},
        }
    },
}
GOOD = {"table": "purchases", "amount": 5}
BAD = {"table": "purchases", "amount": "five", "coupon": 1}


def planned(mode: Mode = "quarantine") -> Site:
    """Return a site whose account has the plan in this mode."""
    site = Site()
    site.publish(shop=PolicyEntry(plan=TrackingPlan.parse({"mode": mode, "tables": TABLES})))
    return site


def test_quarantine_rejects_only_events_that_violate_the_plan() -> None:
    """Each rejection has a code and a message, and every violation is counted."""
    site = planned()
    events = [GOOD, BAD, {"table": "purchases"}, {"table": "elsewhere", "a": 1}, GOOD]
    answer = site.post({"events": events})

    assert 200 == answer.status
    assert 2 == answer.json["accepted"]
    assert [(1, "wrong_type"), (2, "missing_column"), (3, "unplanned_table")] == [
        (one["index"], one["code"]) for one in answer.json["rejected"]
    ]
    assert [5, 5] == [row["amount"] for _, row in site.rows()]
    counted = [line.fields["count"] for line in site.telemetry.lines if "tracking plan" in line.message]
    assert (4, 3) == (sum(counted), site.telemetry.counts["EventsRejected"])


@pytest.mark.parametrize(("mode", "counts"), [("observe", [2, 2, 1]), ("off", [])])
def test_other_modes_accept_everything(mode: Mode, counts: list[int]) -> None:
    """Violations are logged, by account, table and code and without values, in the mode `observe` only."""
    site = planned(mode)
    answer = site.post({"events": [GOOD, BAD, {**BAD, "coupon": "secret"}, {"table": "elsewhere"}]})

    assert {"accepted": 4, "rejected": []} == answer.json
    assert 4 == len(site.rows())
    lines = [line.fields for line in site.telemetry.lines if "tracking plan" in line.message]
    codes = [("purchases", "wrong_type"), ("purchases", "unplanned_column"), ("elsewhere", "unplanned_table")]
    assert [("shop", *code, count) for code, count in zip(codes, counts, strict=False)] == [
        (line["account"], line["table"], line["code"], line["count"]) for line in lines
    ]
    assert "secret" not in json.dumps(lines)


def test_a_pixel_that_violates_the_plan_gets_the_image_and_a_400() -> None:
    """The `referer` header provides `td_url`, so it also satisfies the plan."""
    site = planned()
    fitting = site.pixel("title=x", referer="https://www.shop.example/")
    wrong = site.pixel("titel=x", referer="https://www.shop.example/")
    without = site.pixel("title=x")

    assert [(200, None), (400, "unplanned_column"), (400, "missing_column")] == [
        (answer.status, answer.code) for answer in (fitting, wrong, without)
    ]
    assert fitting.body == wrong.body


@pytest.mark.parametrize("mode", ["observe", "quarantine", "off"])
def test_personal_data_is_handled_in_every_mode(mode: Mode) -> None:
    """Also in tables that the plan does not have. Without a hash key it is dropped; what a privacy signal removes violates no plan."""
    site, keyed = planned(mode), planned(mode)
    keyed.secret.text = json.dumps({"k1": "first secret", "k2": "second secret", ".hash": "hash secret"})
    event = {**GOOD, "email": "a@example.com", "phone": "1"}
    for one in (site, keyed):
        one.post({"events": [event, event | {"table": "purchase"}]}, sec_gpc="1")

    assert (1 if mode == "quarantine" else 2) == len(keyed.rows())
    assert all(row.keys().isdisjoint({"email", "phone", "td_ip"}) for _, row in site.rows())
    assert {32} == {len(row["email"]) for _, row in keyed.rows()}
    assert all("phone" not in row for _, row in keyed.rows())


def test_quarantined_events_keep_their_bytes_but_no_personal_data() -> None:
    """They go to the stream with code and message, as sent except for columns that the plan drops or hashes."""
    site = planned()
    wrong = {"table": "purchases", "amount": "five", "phone": "1"}
    site.post(b'{"events": [{"table":"pageviews", "titel":  1}, %b]}' % json.dumps(wrong).encode())

    first, second = site.rejected()
    message = "the tracking plan has no column titel for this table"
    assert ("unplanned_column", "pageviews", message) == (first.code, first.table, first.message)
    assert b'{"table":"pageviews", "titel":  1}' == first.original
    assert ("wrong_type", "purchases") == (second.code, second.table)
    assert {"table": "purchases", "amount": "five"} == json.loads(second.original)
