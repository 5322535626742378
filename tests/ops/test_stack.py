"""Where the local stack is."""

from pathlib import Path

import pytest

from ops.stack import home


def test_a_relative_home_means_the_folder_it_was_given_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`sluice local` runs the stack in another folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_HOME", "data")

    assert tmp_path / "data" == home()
