"""The command as `uv tool install .` and `pip install .` install it, outside the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from local import recording
from tests.support.sam import ROOT

PACKAGES = ("doubles", "ingest", "local", "ops", "shared", "worker")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOADED = """
import json, sys
from importlib.metadata import packages_distributions
import ops.cli
import ops.deploy.preflight.dns_records  # imported when a preflight needs it

names = packages_distributions()
print(json.dumps(sorted({name for module in sys.modules for name in names.get(module.partition(".")[0], ())})))
"""


class Installation:
    """Sluice's wheel in a virtual environment of its own, with what its metadata requires and nothing else.

    Args:
        folder: where to put it.
        wheel: the wheel.
        extra: the extra to install, or empty for none.
    """

    def __init__(self, folder: Path, wheel: Path, extra: str = "") -> None:
        venv.create(folder / "venv", symlinks=True, with_pip=False)
        (self.site,) = folder.glob("venv/lib/python*/site-packages")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(self.site)
        for found in required(requirements(extra)).values():
            _link(found, self.site)
        self._python = folder / "venv/bin/python"
        self._home = folder / "home"
        self._home.mkdir()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in a folder that has nothing to do with Sluice."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._home)}
        return subprocess.run(
            [self._python, "-P", *arguments],
            cwd=self._home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


def requirements(extra: str = "") -> list[str]:
    """Return what pyproject.toml requires, alone or with an extra."""
    return [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else ())]


def test_requirements_are_bounded_around_the_tested_versions() -> None:
    """A user gets no version that is older than the tested one, and none that may break the interface that is used."""
    locked = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)
    )
    texts = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["local"]]

    for requirement in map(Requirement, texts):
        tested = locked[canonicalize_name(requirement.name)]
        lowest, highest = (
            next(one.version for one in requirement.specifier if one.operator == operator)
            for operator in (">=", "<")
        )
        assert tested in requirement.specifier, requirement
        assert tested.startswith(lowest), requirement
        assert Version(highest).major <= Version(tested).major + 1, requirement


def required(texts: list[str]) -> dict[str, Distribution]:
    """Return the distributions that satisfy requirements, and theirs in turn, by canonical name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in texts]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found[name] = distribution(name)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            waiting += (
                inner
                for inner in map(Requirement, found[name].requires or ())
                if inner.marker is None or inner.marker.evaluate({"extra": extra})
            )
    return found


def _link(found: Distribution, site: Path) -> None:
    """Link a distribution of this environment into another one."""
    for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        if not (site / top).exists():
            (site / top).symlink_to(Path(str(found.locate_file(top))))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a clone that has a built SDK."""
    source = tmp_path_factory.mktemp("source")
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
    (made,) = source.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """`pip install .`."""
    return Installation(tmp_path_factory.mktemp("plain"), wheel)


@pytest.fixture(scope="module")
def with_local(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """`pip install '.[local]'`."""
    return Installation(tmp_path_factory.mktemp("local"), wheel, "local")


def test_the_command_runs_outside_the_repository(plain: Installation) -> None:
    """The wheel has the entry point, and the command behaves as it does in a clone."""
    (entry_points,) = plain.site.glob("sluice-*.dist-info/entry_points.txt")
    done = plain.run("-m", "ops.cli", "status", "--local")

    assert "sluice = ops.cli:main" in entry_points.read_text()
    assert (1, "") == (done.returncode, done.stdout)
    assert "Error: the local stack is not running: start it with `sluice local` or `make up`\n" == done.stderr


def test_the_command_imports_every_base_requirement(plain: Installation) -> None:
    """What only the local stack needs belongs to the extra."""
    done = plain.run("-c", LOADED)
    loaded = {canonicalize_name(name) for name in json.loads(done.stdout)}

    assert [] == [text for text in requirements() if canonicalize_name(Requirement(text).name) not in loaded]


def test_the_local_stack_is_an_extra(plain: Installation) -> None:
    """Without it, `sluice local` says in one sentence what to install."""
    done = plain.run("-m", "ops.cli", "local")

    assert (1, "") == (done.returncode, done.stdout)
    assert (
        "Error: the local stack is not installed (crawleruseragents, moto, redis): "
        "in a clone of Sluice, run `uv tool install '.[local]'` or `pip install '.[local]'`\n" == done.stderr
    )


@pytest.mark.xdist_group("stack")
def test_the_local_stack_runs_outside_the_repository(with_local: Installation, tmp_path: Path) -> None:
    """With the extra installed, an event goes through the whole pipeline."""
    pixel = next(request for request in recording.read() if request.method == "GET")
    recording.write([pixel], tmp_path / "pixel.jsonl")

    done = with_local.run("-m", "local.demo", "--requests", str(tmp_path / "pixel.jsonl"))

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert "accepted 1 = delivered 1 + dead letters 0" in done.stdout


@pytest.mark.parametrize("extra", ["", "local"])
def test_the_development_environment_has_every_requirement(extra: str) -> None:
    """requirements/dev.txt pins everything that an installation requires."""
    pinned = set(
        re.findall(
            r"^([a-z0-9.-]+)(?:\[[^]]*\])?==", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE
        )
    )

    assert set() == {canonicalize_name(Requirement(text).name) for text in requirements(extra)} - pinned


def test_data_files_are_installed(plain: Installation) -> None:
    """The pages of the console and of the local stack and the built SDK are installed; the SDK's sources are not."""
    assert (plain.site / "ops/console/page/index.html").exists()
    assert (plain.site / "local/page/sections.html").exists()
    assert (plain.site / "local/site/shop.html").exists()
    assert (plain.site / "sdk/dist/snippet.html").exists()
    assert not (plain.site / "sdk/src").exists()
