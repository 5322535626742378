"""What commands say of an account that does not exist."""

from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from ops.console.view import ConsoleView
from tests.support.delivery import KEYS, envelope, row
from tests.support.faulty_stack import FaultyStack

DAY = "--from 2025-01-01T00:00 --to 2025-01-02T00:00"
LINES = {
    "dead drop --yes --account": "There are no matching rows.",
    "dead list --account": "There are no matching dead rows.",
    "find a --account": "not found since",
    "plan infer": "no events of shp were found",
    "redrive --account": "There are no matching rows.",
    f"replay --force --yes {DAY} --account": "No such rows arrived then",
    "doctor --no-event --account": "Redis",
}
"""Lines to which an account is added, and what they say without Redis."""


@pytest.fixture
def stack() -> FaultyStack:
    """A stack with two accounts, and a dead row of one that was removed."""
    found = FaultyStack()
    found.made.map(shop="shop_db", app="app_db")
    found.made.put(envelope("removed", {"views": [row("a")]}))
    found.made.deliver()
    return found


@pytest.mark.parametrize("line", LINES)
def test_a_mistyped_account_is_an_error_that_names_similar_ones(stack: FaultyStack, line: str) -> None:
    """That nothing matches would be true, and misleading. Without Redis, nobody can tell, and the command does what it can."""
    mistyped, other = (stack.run(f"{line} {name}") for name in ("shp", "zzz"))
    stack.break_(redis_failure=RedisConnectionError("down"))
    unknown = stack.run(f"{line} shp")

    assert (1, False) == (mistyped.exit_code, LINES[line] in mistyped.stdout), mistyped.output
    similar = f"Similar names: shop. `sluice accounts list {stack.option}` lists all"
    assert mistyped.stderr.startswith(f"Error: there is no account shp. {similar}")
    assert other.stderr.startswith("Error: there is no account zzz. `sluice accounts list")
    assert LINES[line] in unknown.stdout + unknown.stderr
    assert "there is no account" not in unknown.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dead list --account removed", "unknown_account"),
        ("dead list --json --account polled_for", "[]"),
        ("find a --account removed", "DEAD  a of removed.views"),
        ("plan infer removed --since 2020-01-01", "views:"),
        ("redrive --kind dead --dry-run --account removed", "1 row."),
        ("dead drop --yes --account removed", "1 dropped"),
    ],
)
def test_rows_of_a_removed_account_are_within_reach(stack: FaultyStack, line: str, said: str) -> None:
    """Somebody has to see and drop them. In JSON, a list may be empty: a program polls for rows of an account that is unknown yet."""
    result = stack.run(line)

    assert said in result.stdout, result.output
    assert "there is no account" not in result.stderr


def test_a_damaged_account_is_shown_until_it_is_applied(stack: FaultyStack, tmp_path: Path) -> None:
    """It ends no command about others. Applying accounts that do not include it leaves it as it is."""
    stack.made.redis.hset(KEYS.of("app"), mapping={"plan": "{"})
    file, view = tmp_path / "accounts.yaml", ConsoleView(stack)
    file.write_text("shop: {database: shop_db, status: disabled}")
    for command in ("list", "export", f"apply {file} --yes", "enable shop", "show app"):
        result = stack.run(f"accounts {command}")
        assert {"export": 3, "show app": 1}.get(command, 0) == result.exit_code
        assert (command == "enable shop") is (
            "app is damaged (its plan cannot be read)" not in result.stdout + result.stderr
        )
    view.first()
    assert ["damaged", "active"] == [one["status"] for one in view.state()["accounts"]["accounts"]]
    file.write_text("app: {database: app_db}")
    assert "~ app  damaged → app_db" in stack.run(f"accounts apply {file} --yes").stdout
    file.write_text("blog: {database: blog_db, limits: {tables: 5}}")
    assert '+ blog  blog_db, limits: {"tables":5}' in stack.run(f"accounts apply {file} --yes").stdout

    assert {} == stack.json("accounts list")["damaged"]


@pytest.mark.parametrize(("account", "is_noted"), [("shp", True), ("shop", False)])
def test_a_tail_of_a_mistyped_account_has_a_note(stack: FaultyStack, account: str, *, is_noted: bool) -> None:
    """It goes on, because the stream may have events of one that was removed."""
    result = stack.run(f"tail --for 0s --account {account}")

    assert (0, is_noted) == (result.exit_code, f"Note: there is no account {account}. " in result.stderr)
