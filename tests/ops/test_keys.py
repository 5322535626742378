"""`sluice keys`."""

import pytest

from local.accounts import KEYS
from tests.support.sluice import Sluice

pytestmark = pytest.mark.xdist_group("ops")


def test_a_key_is_issued_under_the_newest_secret(sluice: Sluice) -> None:
    """The key and lines to paste are printed; the same request gives the same key."""
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
def test_a_key_whose_rows_would_go_nowhere_comes_with_a_note(sluice: Sluice, line: str, remark: str) -> None:
    """The key is issued, and what keeps its rows from being delivered is said."""
    assert remark in sluice.json(f"keys issue {line} --local")["remark"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop", "valid: rows of shop, key id demo, go to the database shop"),
        ("disabled account", "Error: well signed, but the account closed is disabled"),
        ("revoked key", "Error: well signed, but the key id next-1 is revoked"),
        ("unknown account", "Error: there is no account nobody"),
    ],
)
def test_a_key_is_verified_to_the_end(sluice: Sluice, name: str, said: str) -> None:
    """Signature, account and revocation are looked at."""
    result = sluice.run(f"keys verify {KEYS[name]} --local")

    assert (result.output or result.stderr).startswith(said)
    assert (0 if said.startswith("valid") else 1) == result.exit_code


def test_a_forged_key_is_refused(sluice: Sluice) -> None:
    """A wrong signature is told from a secret that is no longer valid."""
    forged = sluice.run(f"keys verify {KEYS['shop'][:-4]}AAAA --local").stderr
    assert "Error: refused: this write key's signature is wrong\n" == forged
    assert "no longer valid" in sluice.run("keys verify shop.gone.AAAA --local").stderr


def test_a_key_is_revoked(sluice: Sluice) -> None:
    """The key id joins those that are revoked; a dry run only says so."""
    sluice.run("keys revoke app next-7 --local --dry-run")
    assert "" == sluice.json("accounts show --local app")["revoked_key_ids"]

    assert "revoked_key_ids: - → next-7" in sluice.run("keys revoke app next-7 --local").output
    assert "next-7" == sluice.json("accounts show --local app")["revoked_key_ids"]
    assert 1 == sluice.run("keys revoke app KEY --local").exit_code


def test_both_secrets_are_valid_until_the_old_one_is_retired(sluice: Sluice) -> None:
    """Rotation adds a secret; retiring one makes its keys invalid, and the last one stays."""
    assert "Adding the secret k3; demo, next stay valid." in sluice.run("keys rotate --local").output
    assert "shop.k3." in sluice.json("keys issue shop --local")["key"]
    assert 0 == sluice.run(f"keys verify {KEYS['shop']} --local").exit_code

    assert 1 == sluice.run("keys rotate --local --retire demo", answer="n\n").exit_code
    assert 0 == sluice.run("keys rotate --local --retire demo", answer="y\n").exit_code
    assert 1 == sluice.run(f"keys verify {KEYS['shop']} --local").exit_code
    sluice.run("keys rotate --local --retire next --yes")
    assert "k3 is the only secret" in sluice.run("keys rotate --local --retire k3 --yes").stderr
