"""The command as `uv tool install .` and `pip install .` install it, far from the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.sam import ROOT

PACKAGES = ("ingest", "local", "ops", "shared", "worker")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is unpacked into; the SDK was built before."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "sdk/dist").mkdir(parents=True)
    (source / "sdk/dist/snippet.html").write_text("{{endpoint}}")
    (source / "sdk/src").mkdir()
    (source / "sdk/src/script.js").write_text("0")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(source)], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def test_the_command_runs_far_from_the_repository(site: Path, tmp_path: Path) -> None:
    """Its entry point is there and does what it does in a clone."""
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-m", "ops.cli", "status", "--local"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert "sluice = ops.cli:main" in entry_points.read_text()
    assert (1, "") == (done.returncode, done.stdout)
    assert "Error: the local stack does not run: start it with `sluice local`, or `make up`\n" == done.stderr


def test_everything_that_is_no_code_comes_along(site: Path) -> None:
    """The pages of the local stack and the built SDK are installed; the SDK's sources are not."""
    assert (site / "local/page/index.html").exists()
    assert (site / "local/site/shop.html").exists()
    assert (site / "sdk/dist/snippet.html").exists()
    assert not (site / "sdk/src").exists()
