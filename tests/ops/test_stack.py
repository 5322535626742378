"""Where the local stack is, and the region of a deployed one."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.cli import main
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


@pytest.mark.parametrize(
    ("line", "variable", "code", "said"),
    [
        ("status --local --stack foo", "", 2, "use either --local or --stack"),
        ("status --stack foo --local", "", 2, "use either --local or --stack"),
        ("mcp --local --stack foo", "", 2, "use either --local or --stack"),
        ("status --local", "foo", 1, "the local stack is not running"),
    ],
)
def test_the_local_stack_is_not_a_deployed_one_too(
    tmp_path: Path, line: str, variable: str, code: int, said: str
) -> None:
    """The answer would be about a stack that was not asked for. --local comes before the variable."""
    environment = {"SLUICE_HOME": str(tmp_path), "SLUICE_STACK": variable}
    result = CliRunner(mix_stderr=False).invoke(main, line.split(), env=environment)

    assert (code, True) == (result.exit_code, said in result.stderr), result.stderr
