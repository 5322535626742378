"""`sluice replay` over the local stack."""

from pathlib import Path

import pytest

from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("ops")


def test_rows_of_a_mistyped_database_are_put_right(lone: Sluice, tmp_path: Path) -> None:
    """A forced replay by database takes all of them, of every account that shared it, and no others."""
    file = tmp_path / "accounts.yaml"
    file.write_text("shop: {database: shpo}\noutlet: {database: shpo}\napp: {database: shop}")
    applied = lone.run(f"accounts apply --local --yes {file}")
    lone.send("app", "mistyped", "right")
    for account in ("shop", "outlet"):
        lone.send(account, "mistyped", account)
    until(lambda: len(lone.rows("shpo", "mistyped")) == 2 and len(lone.rows("shop", "mistyped")) == 1)
    lone.settled()
    file.write_text(file.read_text().replace("shpo", "shop"))
    lone.run(f"accounts apply --local --yes {file}")
    sent = lone.force("--database shpo")

    assert "there is no database shpo" in applied.stdout
    assert 2 == sent["rows"]["sent"]
    assert ["outlet", "right", "shop"] == sorted(lone.rows("shop", "mistyped"))
