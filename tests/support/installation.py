"""Installs the wheel of the `sluice` command in an environment of its own, without a network."""

import os
import shutil
import subprocess
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release.wheel import build_wheel
from tests.support.sam import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_SDK = {"snippet.html": "{{endpoint}}", "sluice.d.ts": ""}
_SDK |= {"manifest.json": '{"version": "0.1.0", "files": {}}'}


def wheel(folder: Path, artifacts: Mapping[str, bytes]) -> Path:
    """Build the wheel in a copy of the repository that has a built SDK, and return its file."""
    source = folder / "repository"
    for name in ("doubles", "ingest", "local", "ops", "scaler", "shared", "worker"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "artifacts"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements/dev.txt"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / "sdk/dist").mkdir(parents=True)
    for name, text in _SDK.items():
        (source / "sdk/dist" / name).write_text(text)
    (source / "sdk/src").mkdir()
    (source / "sdk/src/script.js").write_text("0")
    return build_wheel(artifacts, folder, source)


class Installation:
    """Sluice's wheel and what its metadata requires, nothing else, in a virtual environment. It runs in the folder `home`."""

    def __init__(self, folder: Path, wheel: Path, extra: str = "") -> None:
        venv.create(folder / "venv", symlinks=True, with_pip=False)
        (self.site,) = folder.glob("venv/lib/python*/site-packages")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(self.site)
        for found in required(requirements(extra)).values():
            for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                if not (self.site / top).exists():
                    (self.site / top).symlink_to(Path(str(found.locate_file(top))))
        self.python = folder / "venv/bin/python"
        self.home = folder / "home"
        self.home.mkdir()

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in a folder that has nothing to do with Sluice, with more environment variables."""
        with self.start(*arguments, **variables) as running:
            out, errors = running.communicate()
        return subprocess.CompletedProcess(arguments, running.returncode, out, errors)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start the environment's Python as `run` does."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)} | variables
        command = [self.python, "-P", *arguments]
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(command, cwd=self.home, env=environment, text=True, **streams)


def requirements(extra: str = "") -> list[str]:
    """Return what pyproject.toml requires, alone or with an extra."""
    return [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else ())]


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
