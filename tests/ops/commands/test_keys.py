"""`sluice keys`: issuing, verifying, revoking and rotating."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from local.accounts import KEYS
from ops.commands import keys
from shared.write_key import FORGET_KEY, HASH_KEY
from tests.support.faulty_stack import FaultyStack
from tests.support.sluice import Sluice

pytestmark = pytest.mark.xdist_group("ops")


def test_issue_signs_with_the_newest_secret(sluice: Sluice) -> None:
    """The same request gives the same key and snippets. A remark says what would keep rows from being delivered."""
    remarks = {
        "closed": "the account is disabled",
        "nobody": "there is no account nobody",
        "news --serial 1": "the key id next-1 is revoked",
    }
    issued = sluice.json("keys issue app --local --table visits")

    assert KEYS["app"] == issued["key"]
    assert f"k={KEYS['app']}&t=visits" in issued["pixel"]
    assert sluice.stack.addresses.gateway in issued["curl"]
    assert KEYS["app"] == sluice.run("keys issue app --local").stdout.splitlines()[0]
    for line, remark in remarks.items():
        assert remark in sluice.json(f"keys issue {line} --local")["remark"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (KEYS["shop"], "Valid: account shop, key id demo. Rows go to the database shop."),
        (KEYS["disabled account"], "Error: the signature is valid, but the account closed is disabled"),
        (KEYS["revoked key"], "Error: the signature is valid, but the key id next-1 is revoked"),
        (KEYS["unknown account"], "Error: there is no account nobody"),
        (f"{KEYS['shop'][:-4]}AAAA", "Error: invalid key: this write key's signature is wrong\n"),
        ("shop.gone.AAAA", "not currently valid"),
    ],
    ids=["valid", "disabled", "revoked", "unknown", "forged", "of a secret that is gone"],
)
def test_verify_checks_signature_account_and_revocation(sluice: Sluice, key: str, said: str) -> None:
    """A key is valid only if its rows are delivered."""
    result = sluice.run(f"keys verify {key} --local")

    assert said in (result.output or result.stderr)
    assert (0 if said.startswith("Valid") else 1) == result.exit_code


def test_code_that_does_not_work_is_not_printed_or_has_a_note_before_it(sluice: Sluice) -> None:
    """An invalid table name is an error; after a screen of code, nobody would read that there is no such account."""
    refused = sluice.run("keys issue app --local --table sign-ups")
    shown = CliRunner().invoke(keys.issue, ["shp"], obj=FaultyStack()).output

    assert (1, "") == (refused.exit_code, refused.stdout)
    assert "'sign-ups' is not a valid table name" in refused.stderr
    assert shown.startswith("Note: there is no account shp")
    assert "curl http://api.invalid/v1/events" in shown


def test_revoke_adds_a_key_id(sluice: Sluice) -> None:
    """A dry run changes nothing. An invalid key id, and one of no signing secret, is an error: the leaked key would stay valid."""
    sluice.run("keys revoke app next-7 --local --dry-run")
    assert "" == sluice.json("accounts show --local app")["revoked_key_ids"]

    assert "revoked_key_ids: - → next-7" in sluice.run("keys revoke app next-7 --local --yes").output
    assert "next-7" == sluice.json("accounts show --local app")["revoked_key_ids"]
    assert 1 == sluice.run("keys revoke app KEY --local").exit_code
    mistyped = sluice.run("keys revoke app nexxt-7 --local")
    assert 1 == mistyped.exit_code
    assert "no signing secret has the id nexxt: the valid ones are demo, next." in mistyped.stderr


def test_both_secrets_are_valid_until_the_old_one_is_retired(sluice: Sluice) -> None:
    """Rotation adds a secret; retiring one invalidates its keys, and the last one cannot be retired."""
    said = sluice.run("keys rotate --local").output
    added = said.split()[3].rstrip(".")
    assert f"Adding the secret {added}. Still valid: demo, next." in said
    assert f"shop.{added}." in sluice.json("keys issue shop --local")["key"]
    assert 0 == sluice.run(f"keys verify {KEYS['shop']} --local").exit_code

    assert 1 == sluice.run("keys rotate --local --retire demo", answer="n\n").exit_code
    assert 0 == sluice.run("keys rotate --local --retire demo", answer="y\n").exit_code
    assert 1 == sluice.run(f"keys verify {KEYS['shop']} --local").exit_code
    sluice.run("keys rotate --local --retire next --yes")
    assert f"{added} is the only secret" in sluice.run(f"keys rotate --local --retire {added} --yes").stderr


def test_retiring_a_secret_keeps_what_others_store_during_the_question() -> None:
    """Without `.forget`, rows of all accounts would wait forever."""
    before = {"k1": "old", "k2": "new"}
    answers, stored = iter([before, before | {FORGET_KEY: "key", "k3": "newest"}]), list[str]()
    client = SimpleNamespace(
        get_secret_value=lambda **_: {"SecretString": json.dumps(next(answers))},
        put_secret_value=lambda **request: stored.append(request["SecretString"]),
    )
    stack = FaultyStack()
    stack.break_(client=lambda _: client)

    assert 0 == stack.run("keys rotate --retire k1", "y\n").exit_code
    assert [{"k2": "new", FORGET_KEY: "key", "k3": "newest"}] == [json.loads(text) for text in stored]


def test_the_key_for_hashed_columns_signs_no_write_key_and_is_kept(lone: Sluice) -> None:
    """It is a member of the same secret. With another one, or with none, equal values would get other hashes."""
    made = lone.stack.resources
    client, name = made.client("secretsmanager"), made.write_key_secret
    client.put_secret_value(SecretId=name, SecretString=json.dumps({"k1": "a" * 48, HASH_KEY: "b" * 48}))
    none = f"there is no secret {HASH_KEY}"
    looked = lone.json("doctor --local --no-event --account app")["findings"]

    assert "k1" == lone.json("keys issue shop --local")["key_id"]
    (tried,) = (one["said"] for one in looked if one["what"] == "write key")
    assert "the key k1 of app" in tried  # the ingest may not know the new secret yet
    assert "k1 is the only secret" in lone.run("keys rotate --local --retire k1 --yes").stderr
    assert "Still valid: k1." in lone.run("keys rotate --local").output
    assert 0 == lone.run("keys rotate --local --retire k1 --yes").exit_code
    members = json.loads(client.get_secret_value(SecretId=name)["SecretString"])
    (added,) = members.keys() - {HASH_KEY}
    assert ("b" * 48, True) == (members[HASH_KEY], added != "k1")
    assert none in lone.run(f"keys rotate --local --retire {HASH_KEY} --yes").stderr
