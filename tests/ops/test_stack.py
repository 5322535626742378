"""Where the local stack is, and the region of a deployed one."""

from pathlib import Path

import pytest

from ops.failure import Failure
from ops.stack import home, session_in


def test_a_relative_home_means_the_folder_it_was_given_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`sluice local` runs the stack in another folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_HOME", "data")

    assert tmp_path / "data" == home()


@pytest.mark.parametrize("given", [None, "", "eu-central-1"])
@pytest.mark.parametrize("ours", ["", "us-west-2"])
def test_an_empty_region_counts_as_none(
    monkeypatch: pytest.MonkeyPatch, given: str | None, ours: str
) -> None:
    """The option comes before `AWS_REGION`, and that before `AWS_DEFAULT_REGION`. Without any, the message says what to do."""
    monkeypatch.setenv("AWS_REGION", ours)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-1")

    assert (given or ours or "ap-northeast-1") == session_in(given).region_name
    monkeypatch.setenv("AWS_REGION", "")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "")
    with pytest.raises(Failure, match=r"no region: pass --region, set AWS_REGION, or .* `aws configure`"):
        session_in("")
