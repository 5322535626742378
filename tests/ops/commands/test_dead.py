"""`sluice dead` over the local stack."""

import json

import pytest

from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("ops")

SAID, EVENT = "a column is invalid", "taro@example.com"


def refuse(stack: Sluice, status: int, database: str) -> None:
    """Have Treasure Data refuse a database's imports, quoting a value of a row."""
    document = {
        "error": "x",
        "message": f"{SAID}: {EVENT}",
        "text": "x",
        "severity": "error",
        "status_code": status,
    }
    fault = {"kind": "status", "status": status, "action": "import", "database": database}
    stack.td("faults", fault | {"body": json.dumps(document)})


def test_treasure_data_s_own_words_are_shown_wherever_the_rows_are(lone: Sluice) -> None:
    """Without the values of rows, in `dead list`, `dead show`, `status` and `find`."""
    refuse(lone, 415, "shop")
    lone.send("shop", "refused", EVENT)
    until(lambda: lone.json("dead list --local") != [])
    [listed] = lone.json("dead list --local")
    shown = lone.run(f"dead show --local {listed['id']}")
    found, _ = lone.json_lines(f"find {EVENT} --local")

    kept = f"{SAID}: \u2026"
    assert [kept, kept] == [listed["words"], found["words"]]
    assert (
        f'1 row of shop.refused: http_415, since {listed["since"]}. Treasure Data says: "{kept}"'
        in shown.stderr
    )
    assert EVENT == json.loads(shown.stdout)["event_id"]
    assert kept in lone.run("status --local").stdout
    assert kept in lone.run("dead list --local").stdout
    assert f'said       "{kept}" (Treasure Data)' in lone.run(f"find {EVENT} --local").stdout
    assert [kept] == [one["words"] for one in lone.json("status --local")["rows"]]


def test_a_database_that_the_key_may_not_import_into_is_named(lone: Sluice) -> None:
    """The key may be right for every other one."""
    refuse(lone, 403, "field_app")
    lone.send("app", "forbidden", "b")
    until(lambda: any(one["reason"] == "http_403" for one in lone.json("status --local")["waiting"]))
    said = lone.run("find b --local").stdout

    assert "the API key may not import into field_app" in said
    assert "grant it, or correct the account's database in accounts.yaml" in said
    assert "the API key may not import into field_app" in lone.run("status --local").stdout
