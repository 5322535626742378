"""The command's forced replay sends delivered rows again, once under each tag, and nothing else."""

from pathlib import Path

import pytest

from tests.support.sluice import Sluice, until

pytestmark = pytest.mark.xdist_group("ops")


def test_dead_rows_are_left_out(sluice: Sluice, tmp_path: Path) -> None:
    """Only a redrive sends them; once it has, a forced replay under another tag includes them."""
    sluice.produce("later", "later_rows", "a")
    until(lambda: any(one["account"] == "later" for one in sluice.json("status --local")["rows"]))
    before = sluice.force("--tag early --account later")
    file = tmp_path / "accounts.yaml"
    exported = sluice.run("accounts export --local").stdout
    file.write_text(f"{exported}\nlater: {{database: later_db}}\n")
    applied = sluice.run(f"accounts apply --local --yes {file}")
    redriven = sluice.json("redrive --local --kind dead --account later")
    lost = sluice.lose("later_db", "later_rows")
    after = sluice.force("--tag later --account later")
    repeated = sluice.force("--tag later --account later")
    file.write_text(exported)
    sluice.run(f"accounts apply --local --yes {file}")

    assert ({"later/later_rows": 1}, 0) == (before["left_out"], before["rows"]["sent"])
    assert (0, 1, 1) == (applied.exit_code, redriven["delivered"], lost)
    assert [(1, 0), (0, 1)] == [
        (one["rows"]["sent"], one["rows"]["passed_over"]) for one in (after, repeated)
    ]
    assert ["a"] == sluice.rows("later_db", "later_rows")


def test_a_dry_run_counts_the_rows(sluice: Sluice) -> None:
    """It appends none of them."""
    sluice.send("shop", "dry_rows", "a", "b")
    until(lambda: len(sluice.rows("shop", "dry_rows")) == 2)
    sluice.settled()
    counted = sluice.force("--dry-run --account shop --table dry_rows")
    sent = sluice.force("--account shop --table dry_rows")

    assert 2 == counted["rows"] == sent["rows"]["sent"]
