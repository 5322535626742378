"""`sluice accounts` and the file that it applies."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from local.resources import LEDGER_TABLE
from ops import accounts_file
from ops.failure import Failure
from shared.accounts import Account, AccountKeys
from tests.support.sluice import Sluice

pytestmark = pytest.mark.xdist_group("ops")

KEYS = AccountKeys(LEDGER_TABLE)
FILE = "shop: {database: shop}\nnews: {database: media, status: disabled, revoked_key_ids: [k1, k1-2]}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An accounts.yaml of two accounts."""
    path = tmp_path / "accounts.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def redis(sluice: Sluice) -> Iterator[Redis]:
    """The stack's Redis."""
    with Redis.from_url(sluice.stack.addresses.redis, decode_responses=True) as client:
        yield client


def test_a_dry_run_shows_the_difference_and_changes_nothing(sluice: Sluice, redis: Redis, file: Path) -> None:
    """The difference lists each account that would be added, removed or changed. In JSON, too, accounts are applied only with --yes."""
    line = f"accounts apply --local --prune {file}"
    result = sluice.run(f"{line} --dry-run")
    refused = sluice.run(f"{line} --json")

    assert result.output.splitlines() == [
        "- app  field_app",
        "- closed  closed_shop, disabled",
        "~ news  status: active → disabled, revoked_key_ids: next-1 → k1,k1-2, plan: observe, 3 tables → -",
        "- outlet  shop",
        "Warning: 3 accounts removed: their events are refused within a minute, and events that were accepted before become dead rows.",
        "Dry run: nothing was changed.",
    ]
    assert (1, "") == (refused.exit_code, refused.stdout.strip())
    assert "- app  field_app\n" in refused.stderr
    assert "Apply these changes?" in refused.stderr
    assert not sluice.json(f"{line} --dry-run")["applied"]
    assert redis.exists(KEYS.of("app"))
    assert sluice.json(f"{line} --yes")["applied"]
    assert not redis.exists(KEYS.of("app"))


def test_apply_keeps_accounts_that_the_file_does_not_have(sluice: Sluice, redis: Redis, file: Path) -> None:
    """The file of one colleague does not remove the accounts of another. If Redis has lost its data, they are written again."""
    result = sluice.run(f"accounts apply --local --yes {file}")

    assert "app, closed, outlet stay, although not in the file: --prune removes." in result.output
    assert result.output.endswith("Applied: 1 changed. The worker and the ingest see this within a minute.\n")
    listed = sluice.json("accounts list --local")["accounts"]
    assert {"app", "closed", "news", "outlet", "shop"} == set(listed)
    redis.flushall()
    empty = sluice.run("accounts list --local").output
    result = sluice.run(f"accounts apply --local --yes {file}")

    assert "Redis is empty: fill it with `sluice accounts apply accounts.yaml --local`." in empty
    assert "Redis is empty. Rows wait until accounts are applied.\n+ news" in result.output
    assert redis.exists(KEYS.of(".applied"))
    news = Account("media", "disabled", frozenset({"k1", "k1-2"}))
    assert news.to_fields() == redis.hgetall(KEYS.of("news"))


def test_apply_warns_of_another_database(sluice: Sluice, tmp_path: Path) -> None:
    """A mistyped name would create one, and send the account's rows there. No row moves: a command sends those in the old one again."""
    path = tmp_path / "accounts.yaml"
    path.write_text("news: {database: medai}")
    warning = "Warning: there is no database medai. The first event of its accounts creates it: check the spelling.\n"

    assert warning in sluice.run(f"accounts apply --local {path}", answer="n\n").stdout
    assert ["medai"] == sluice.json(f"accounts apply --local --dry-run {path}")["missing_databases"]
    sluice.td("faults", {"kind": "status", "status": 503, "action": "list"})
    unknown = sluice.run(f"accounts apply --local --dry-run {path}").stdout
    sluice.heal()
    assert "Treasure Data does not answer, so whether the databases exist was not checked." in unknown
    path.write_text("app: {database: other_app}")
    moved = sluice.run(f"accounts apply --local --yes {path}").output
    path.write_text("app: {database: field_app}")
    sluice.run(f"accounts apply --local --yes {path}")
    assert "Rows of app that were delivered stay in field_app." in moved
    assert "`sluice replay --local --force --database field_app --from TIME --to TIME`" in moved


def test_disable_and_enable_change_one_account(sluice: Sluice, redis: Redis) -> None:
    """The other accounts keep their status, and a reminder names the file to edit."""
    said = sluice.run("accounts disable --local app --yes").output
    assert "status: active → disabled" in said
    assert "accounts.yaml" in said
    assert "disabled" == redis.hget(KEYS.of("app"), "status")

    sluice.run("accounts enable --local app --dry-run")
    assert "disabled" == redis.hget(KEYS.of("app"), "status")
    sluice.run("accounts enable --local app")
    assert "active" == redis.hget(KEYS.of("app"), "status")
    assert "No changes.\n" == sluice.run("accounts enable --local app").output


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has no accounts"),
        ("- shop", "has no accounts"),
        ("shop: media", "shop needs a database"),
        ("shop: {database: s}", "'s' is not a legal database name"),
        ("s: {database: shop}", "'s' is not a valid account name"),
        ("shop: {databse: shop}", "an unknown field databse"),
        ("shop: {database: shop, status: off}", "status must be active or disabled"),
        ("shop: {database: shop, revoked_key_ids: [K]}", "revoked_key_ids must be a list of key ids"),
        ("shop: {database: shop, limits: {rows: 5}}", "'rows' is not a limit: use tables,"),
        ("shop: {database: shop, limits: {tables: 0}}", "tables must be a positive integer, not 0"),
        ("shop: {database: shop}\nshop: {database: media}", "duplicate key 'shop'"),
        (
            "shop: {database: shop, plan: '{\"tables\": {}}'}",
            "shop: plan must be a mapping or the name of a file, but this is JSON in quotes",
        ),
        ("shop: {database: shop, revoked_key_ids: 1}", "revoked_key_ids must be a list of key ids"),
        ("shop: {database: 2026-02-30}", "is not YAML"),
        ("shop: {", "is not YAML (docs/commands.md#accountsyaml)"),
        ("? [shop]\n: {database: shop}", "is not YAML"),
    ],
)
def test_an_invalid_file_is_rejected_in_one_line(tmp_path: Path, text: str, fault: str) -> None:
    """The message names the file's first error, and nothing is applied. It is short, too, if the content is given in place of the name."""
    path = tmp_path / "accounts.yaml"
    path.write_text(text)

    with pytest.raises(Failure) as raised:
        accounts_file.read(path)
    assert fault in raised.value.message
    assert "\n" not in raised.value.message
    with pytest.raises(Failure, match=r"^pass the name of a file, not its content$"):
        accounts_file.read(Path('{"shop": {"database": "shop"}, ' + "x" * 500))
