"""Where the local stack is, and the region of a deployed one."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.cli import main
from ops.failure import Failure
from ops.stack import announce, home, local, session_in


def test_a_relative_home_is_where_it_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`sluice local` runs the stack in another folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_HOME", "data")

    assert tmp_path / "data" == home()


def test_a_stack_of_another_clone_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the last one that was started has stopped, the one before is found. Without a home folder, none is noted."""
    monkeypatch.delenv("SLUICE_HOME", raising=False)
    monkeypatch.setattr("ops.stack._ROOT", tmp_path)
    for name in ("template.yaml", "first/stack.json", "second/stack.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for home_folder, folder in (("home", "first"), ("home", "second"), ("template.yaml", "third")):
        monkeypatch.setenv("HOME", str(tmp_path / home_folder))
        announce(tmp_path / folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("second", "first"):
        with pytest.raises(KeyError):
            local()
        assert f"Note: this is the local stack of {tmp_path / name}.\n" == capsys.readouterr().err
        (tmp_path / name / "stack.json").unlink()


@pytest.mark.parametrize("given", [None, "", "eu-central-1"])
@pytest.mark.parametrize("ours", ["", "us-west-2"])
def test_an_empty_region_is_none(monkeypatch: pytest.MonkeyPatch, given: str | None, ours: str) -> None:
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
