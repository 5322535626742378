"""`sluice keys`: issuing, verifying, revoking and rotating."""

import json

import pytest

from local.accounts import KEYS
from shared.write_key import HASH_KEY
from tests.support.sluice import Sluice

pytestmark = pytest.mark.xdist_group("ops")


def test_issue_signs_with_the_newest_secret(sluice: Sluice) -> None:
    """The output has the key and snippets to paste; the same request gives the same key."""
    issued = sluice.json("keys issue app --local --table visits")

    assert KEYS["app"] == issued["key"]
    assert f"k={KEYS['app']}&t=visits" in issued["pixel"]
    assert sluice.stack.addresses.gateway in issued["curl"]
    assert KEYS["app"] == sluice.run("keys issue app --local").stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ("closed", "the account is disabled"),
        ("nobody", "there is no account nobody"),
        ("news --serial 1", "the key id next-1 is revoked"),
    ],
)
def test_issue_warns_about_a_key_that_delivers_nothing(sluice: Sluice, line: str, remark: str) -> None:
    """The key is issued anyway, and the remark says what keeps its rows from being delivered."""
    assert remark in sluice.json(f"keys issue {line} --local")["remark"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop", "Valid: account shop, key id demo. Rows go to the database shop."),
        ("disabled account", "Error: the signature is valid, but the account closed is disabled"),
        ("revoked key", "Error: the signature is valid, but the key id next-1 is revoked"),
        ("unknown account", "Error: there is no account nobody"),
    ],
)
def test_verify_checks_the_signature_the_account_and_the_revocation(
    sluice: Sluice, name: str, said: str
) -> None:
    """A key is valid only if its rows are delivered."""
    result = sluice.run(f"keys verify {KEYS[name]} --local")

    assert (result.output or result.stderr).startswith(said)
    assert (0 if said.startswith("Valid") else 1) == result.exit_code


def test_verify_rejects_a_forged_key(sluice: Sluice) -> None:
    """A wrong signature and a secret that is no longer valid have different messages."""
    forged = sluice.run(f"keys verify {KEYS['shop'][:-4]}AAAA --local").stderr
    assert "Error: invalid key: this write key's signature is wrong\n" == forged
    assert "not currently valid" in sluice.run("keys verify shop.gone.AAAA --local").stderr


def test_revoke_adds_a_key_id(sluice: Sluice) -> None:
    """A dry run changes nothing, and an invalid key id is an error."""
    sluice.run("keys revoke app next-7 --local --dry-run")
    assert "" == sluice.json("accounts show --local app")["revoked_key_ids"]

    assert "revoked_key_ids: - → next-7" in sluice.run("keys revoke app next-7 --local").output
    assert "next-7" == sluice.json("accounts show --local app")["revoked_key_ids"]
    assert 1 == sluice.run("keys revoke app KEY --local").exit_code


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


@pytest.fixture
def hashing(lone: Sluice) -> Sluice:
    """The command for a stack whose secret also has the key for hashed columns, as its last member."""
    made = lone.stack.resources
    made.client("secretsmanager").put_secret_value(
        SecretId=made.write_key_secret, SecretString=json.dumps({"k1": "a" * 48, HASH_KEY: "b" * 48})
    )
    return lone


def _members(sluice: Sluice) -> dict[str, str]:
    made = sluice.stack.resources
    text = made.client("secretsmanager").get_secret_value(SecretId=made.write_key_secret)["SecretString"]
    members: dict[str, str] = json.loads(text)
    return members


def test_the_key_for_hashed_columns_signs_no_write_key(hashing: Sluice) -> None:
    """Keys are issued under the newest signing secret, and nothing else can be named."""
    assert "k1" == hashing.json("keys issue shop --local")["key_id"]
    assert (
        f"there is no secret {HASH_KEY}" in hashing.run(f"keys issue shop --local --secret {HASH_KEY}").stderr
    )
    looked = hashing.json("doctor --local --no-event --account app")["findings"]
    (about,) = (one for one in looked if one["what"] == "write key")
    assert "the key k1 of app" in about["said"]


def test_the_last_signing_secret_stays_beside_the_key_for_hashed_columns(hashing: Sluice) -> None:
    """Retiring it would make every write key invalid."""
    result = hashing.run("keys rotate --local --retire k1 --yes")

    assert "k1 is the only secret" in result.stderr
    assert {"k1", HASH_KEY} == _members(hashing).keys()


def test_rotation_keeps_the_key_for_hashed_columns(hashing: Sluice) -> None:
    """Otherwise equal values would get different hashes, or none."""
    assert "Still valid: k1." in hashing.run("keys rotate --local").output
    hashing.run("keys rotate --local --retire k1 --yes")

    assert "b" * 48 == _members(hashing)[HASH_KEY]
    (added,) = _members(hashing).keys() - {HASH_KEY}
    assert "k1" != added
    assert (
        f"there is no secret {HASH_KEY}"
        in hashing.run(f"keys rotate --local --retire {HASH_KEY} --yes").stderr
    )
