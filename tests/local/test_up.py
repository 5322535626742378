"""What `make up` prints for somebody who has just started it."""

import json
from pathlib import Path

import pytest

from local.accounts import KEYS
from local.up import ROOT, next_steps

GATEWAY, PAGE = "http://127.0.0.1:8700", "http://127.0.0.1:8702"


def test_it_prints_what_to_call_and_what_to_paste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to read the documentation for that first. A command that is on the path already is not explained."""
    (tmp_path / "sluice").touch(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    (build,) = next_steps(GATEWAY, PAGE, tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    (tmp_path / "manifest.json").write_text(json.dumps({"version": "0.1.0", "files": {}}))
    (tmp_path / "snippet.html").write_text("{{endpoint}} {{key}} {{sdk}}/0.1.0/sluice.js")
    path, *others = next_steps(GATEWAY, PAGE, tmp_path)

    assert "run `make sdk`" in build
    assert f'export PATH="{ROOT}/bin:$PATH"' in path
    assert ["For your page:", f"{GATEWAY} {KEYS['shop']} {PAGE}/sdk/0.1.0/sluice.js"] == others
