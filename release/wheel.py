"""Builds the wheel of the `sluice` command, which carries the artifacts that `sluice deploy` deploys.

Its metadata pins every package that the command imports, directly or not, to the version that the tests run with. The same commit
gives the same bytes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.errors import SluiceError

_MOMENT = "315532800"  # 1980, the earliest that a zip can hold, in UNIX seconds
_FILES = ("README.md", "LICENSE")
_BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
_PINNED = re.compile(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)


class WheelError(SluiceError):
    """The wheel cannot be built."""


def build_wheel(artifacts: Mapping[str, bytes], to: Path, root: Path = Path()) -> Path:
    """Build the wheel, twice, and return its file.

    Args:
        artifacts: the files of `make package`, by name.
        to: the folder to write it to.
        root: the repository. It must have the built browser SDK.

    Raises:
        WheelError: something is missing, the build failed, or two builds differ.
    """
    if not (root / "sdk/dist/manifest.json").exists():
        raise WheelError("the wheel carries the browser SDK, which is not built: run `make sdk` first")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        made, again = (_build(artifacts, Path(folder), root) for folder in (first, second))
        if made.read_bytes() != again.read_bytes():
            raise WheelError(f"two builds of {made.name} differ")
        return Path(shutil.copy(made, to))


def _build(artifacts: Mapping[str, bytes], folder: Path, root: Path) -> Path:
    """Build the wheel once, from a copy of the repository, and return its file."""
    source, out = folder / "source", folder / "out"
    text = (root / "pyproject.toml").read_text()
    for pattern in tomllib.loads(text)["tool"]["setuptools"]["packages"]["find"]["include"]:
        name = pattern.removesuffix("*").replace(".", "/")
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(root / name, source)
    (source / "ops/artifacts").mkdir()
    for name, content in artifacts.items():
        (source / "ops/artifacts" / name).write_bytes(content)
    (source / "pyproject.toml").write_text(pinned(text, (root / "requirements/dev.txt").read_text()))
    for path in source.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the wheel stores the modes
    out.mkdir()
    environment = os.environ | {"SOURCE_DATE_EPOCH": _MOMENT, "PYTHONHASHSEED": "0"}
    done = subprocess.run(  # noqa: S603 -- our own arguments
        [sys.executable, "-c", _BUILD, str(out)],
        cwd=source,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise WheelError(f"setuptools cannot build the wheel: {done.stderr[-500:]}")
    (made,) = out.glob("*.whl")
    return made


def pinned(project: str, locked: str) -> str:
    """Return pyproject.toml with its requirements, and theirs in turn, pinned to the versions of a lock file.

    Raises:
        WheelError: the lock file lacks one of them.
    """
    versions = dict(_PINNED.findall(locked))
    found = tomllib.loads(project)["project"]
    for texts in (found["dependencies"], *found["optional-dependencies"].values()):
        pins = []
        for name, extras in sorted(closure(texts).items()):
            if name not in versions:
                raise WheelError(f"requirements/dev.txt has no {name}: run `make lock`")
            pins.append(f"{name}{f'[{",".join(sorted(extras))}]' if extras else ''}=={versions[name]}")
        block = re.compile(r"\[\n" + "".join(rf'\s*"{re.escape(text)}",\n' for text in texts) + r"\]")
        project, count = block.subn("[\n" + "".join(f'    "{pin}",\n' for pin in pins) + "]", project)
        if count != 1:
            raise WheelError("pyproject.toml does not list each requirement on a line of its own")
    return project


def closure(texts: Iterable[str]) -> dict[str, set[str]]:
    """Return the packages that satisfy requirements, and theirs in turn, by canonical name, each with the extras that are needed."""
    found: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in texts]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.setdefault(name, set()).update(requirement.extras)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            waiting += [
                inner
                for inner in map(Requirement, requires(name) or ())
                if inner.marker is None or inner.marker.evaluate({"extra": extra})
            ]
    return found
