"""Lays out the content of one function's zip. `sam build` runs this through the Makefile's build-… targets.

This uses only the standard library, so that `sam build` needs Python 3.13 and uv but none of the environments.
"""

import argparse
import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ARCHITECTURES = {"arm64": "aarch64-manylinux2014", "x86_64": "x86_64-manylinux2014"}

# The packages of this repository that a function imports. The first one has its requirements.
PACKAGES = {"ingest": ("ingest", "shared"), "worker": ("worker", "shared"), "scaler": ("scaler", "shared")}

# Files that no function imports, as globs below the zip's root. A test loads each function from the remaining files.
UNUSED = (
    "*.dist-info",
    "bin",
    ".lock",
    "**/*.pyi",
    "**/py.typed",
    "**/__pycache__",
    # Powertools: routers, parsers, batch processors. Of its utilities, the logger needs only jmespath_utils.
    "aws_lambda_powertools/event_handler",
    "aws_lambda_powertools/utilities/[!j]*/",
    # crawler-user-agents: its own tests and other languages' metadata.
    "crawleruseragents/test_*",
    "crawleruseragents/validate.py",
    "crawleruseragents/package*.json",
    "crawleruseragents/composer.json",
    # isal: the C library's documentation.
    "isal/isa-l",
    # pybase64: its command.
    "pybase64/__main__.py",
    # redis: modules of Redis Stack and failover between deployments, imported where they are called.
    "redis/commands/*/",
    "redis/http",
    "redis/multidb",
    "redis/asyncio/http",
    "redis/asyncio/multidb",
)


def package(function: str, architecture: str, target: Path, uv: str, root: Path = Path()) -> None:
    """Fill an empty folder with one function's code and its locked dependencies, all compiled.

    Libraries are stored only as bytecode, which halves the zip. Sluice's own code keeps its source, for tracebacks.

    Args:
        function: `ingest`, `worker` or `scaler`.
        architecture: Lambda's name for it, `arm64` or `x86_64`.
        target: the folder to fill. Its content becomes the zip.
        uv: the path of uv.
        root: the repository.

    Raises:
        subprocess.CalledProcessError: a dependency is not available as a wheel with the locked hash.
        RuntimeError: a module could not be compiled.
    """
    target.mkdir(parents=True, exist_ok=True)
    install = [uv, "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--no-deps"]
    install += ["--python", sys.executable, "--python-version=3.13"]
    install += [f"--python-platform={ARCHITECTURES[architecture]}", "--link-mode=copy", f"--target={target}"]
    install += ["--requirements", str(root / function / "requirements.txt")]
    subprocess.run(install, check=True)  # noqa: S603 - our own arguments
    _drop(target, UNUSED)
    _compile(target, target, beside_source=False)
    _drop(target, ("**/*.py",))
    for name in PACKAGES[function]:
        shutil.copytree(
            root / name, target / name, ignore=shutil.ignore_patterns("requirements.*", "__pycache__")
        )
        _compile(target / name, target, beside_source=True)


def _drop(folder: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _compile(folder: Path, target: Path, *, beside_source: bool) -> None:
    # Lambda's file system is read-only, so without bytecode every cold start would compile again. The bytecode is unchecked,
    # because a zip does not keep the times that the usual check compares. Tracebacks name the files by their path in Lambda.
    done = compileall.compile_dir(
        folder,
        quiet=1,
        legacy=not beside_source,
        stripdir=str(target),
        prependdir="/var/task",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        raise RuntimeError(f"not everything in {folder} could be compiled")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and package one function."""
    parser = argparse.ArgumentParser(prog="python -m release.function_zip", description=main.__doc__)
    parser.add_argument("function", choices=PACKAGES)
    parser.add_argument("architecture", choices=ARCHITECTURES)
    parser.add_argument("target", type=Path)
    parser.add_argument("--uv", default=os.environ.get("UV", "uv"))
    options = parser.parse_args(arguments)
    package(options.function, options.architecture, options.target.resolve(), options.uv)


if __name__ == "__main__":
    main()
