"""Lays out the content of one function's zip. `sam build` runs this through the Makefile's build-… targets.

This uses only the standard library, so that `sam build` needs Python 3.13 and uv but none of the environments.
"""

import argparse
import compileall
import gzip
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ARCHITECTURES = {"arm64": "aarch64-manylinux2014", "x86_64": "x86_64-manylinux2014"}

# The packages of this repository that a function imports. The first one has its requirements.
PACKAGES = {"ingest": ("ingest", "shared"), "worker": ("worker", "shared"), "scaler": ("scaler", "shared")}

# The AWS services that a function calls: boto3 has models of hundreds.
SERVICES = {
    "ingest": (),
    "worker": ("dynamodb", "kinesis", "s3", "secretsmanager", "sqs"),
    "scaler": ("cloudwatch", "kinesis", "s3", "sqs"),
}

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
    # boto3 and what it needs: resources, examples, waiters, other transports, a second bundle of certificates, time zones.
    "boto3/data",
    "boto3/examples",
    "botocore/cacert.pem",
    "botocore/crt/auth.py",
    "botocore/data/*/*/examples-*",
    "botocore/data/*/*/waiters-*",
    "botocore/stub.py",
    "dateutil/rrule.py",
    "dateutil/zoneinfo",
    "s3transfer/crt.py",
    "s3transfer/processpool.py",
    # certifi: its command.
    "certifi/__main__.py",
    # msgpack: what is there in C as well.
    "msgpack/fallback.py",
    # urllib3: other transports.
    "urllib3/contrib/emscripten",
    "urllib3/contrib/pyopenssl.py",
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
    _trim_data(target, SERVICES[function])
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


def _trim_data(target: Path, services: Iterable[str]) -> None:
    """Drop the AWS services that the function does not call, and what data files have only for people."""
    for folder in (target / "botocore" / "data").glob("*/"):
        if folder.name not in services:
            shutil.rmtree(folder)
    for packed in (target / "botocore" / "data").glob("*/*/*.json.gz"):
        model = _without(json.loads(gzip.decompress(packed.read_bytes())), "documentation")
        packed.with_suffix("").write_text(json.dumps(model, separators=(",", ":")))
        packed.unlink()
    for bundle in target.glob("certifi/cacert.pem"):
        lines = [line for line in bundle.read_text().splitlines() if line and not line.startswith("#")]
        bundle.write_text("\n".join(lines) + "\n")
    for known in target.glob("crawleruseragents/*.json"):
        bots = [{"pattern": bot["pattern"]} for bot in json.loads(known.read_text())]
        known.write_text(json.dumps(bots, separators=(",", ":")))


def _without(value: Any, name: str) -> Any:
    """Return a JSON value with each text of this name empty: botocore expects it to be there."""
    if isinstance(value, dict):
        return {
            key: "" if key == name and isinstance(member, str) else _without(member, name)
            for key, member in value.items()
        }
    return [_without(item, name) for item in value] if isinstance(value, list) else value


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
