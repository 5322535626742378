"""The contents and the size of the functions' zips, and the modules that a cold start loads from them."""

import ast
import importlib.util
import json
import ssl
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from release.build import sizes
from release.function_zip import PACKAGES, SERVICES
from tests.support.sam import FUNCTIONS, ROOT, properties

pytestmark = pytest.mark.xdist_group("runtime")

MB = 1_000_000
LIBRARIES = {"aws_lambda_powertools", "certifi", "jmespath", "msgpack", "orjson", "typing_extensions"}
SDK = {"boto3", "botocore", "dateutil", "s3transfer", "six", "urllib3"}
DELIVERY = {"isal", "msgspec", "pybase64", "redis"}
CONTENTS = {
    "ingest": {"ingest", "shared", "crawleruseragents", *LIBRARIES},
    "worker": {"worker", "shared", *LIBRARIES, *SDK, *DELIVERY},
    "scaler": {"scaler", "shared", *LIBRARIES, *SDK},
}
LATER = {"ingest": {"certifi"}, "worker": set[str](), "scaler": set[str]()}
"""Packages that a cold start does not load: of certifi, the ingest only reads the file."""
LIMITS = {"ingest": 1.3 * MB, "worker": 4.5 * MB, "scaler": 4.5 * MB}
# Imports the handler's module as Lambda does, and prints the modules loaded from the function's folder.
LOAD = """
import importlib, json, sys
folder, libraries, module = sys.argv[1:]
sys.path[:0] = [folder, libraries]
importlib.import_module(module)
found = {name: getattr(loaded, "__file__", None) or "" for name, loaded in list(sys.modules.items())}
print(json.dumps(sorted(name for name, path in found.items() if path.startswith(folder))))
"""


def package(function: str) -> str:
    """Return the package that contains the function's handler."""
    return str(properties(function)["Handler"]).partition(".")[0]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_zip_has_only_what_is_imported(function: str, artifacts: Path, runtime_libraries: Path) -> None:
    """A cold start loads nearly all of them; the slow parts of Powertools are not there, and the zip stays small."""
    contents = {path.name.partition(".")[0] for path in (artifacts / function).iterdir()}
    module = str(properties(function)["Handler"]).rpartition(".")[0]
    command = [sys._base_executable, "-I", "-S", "-c", LOAD]  # type: ignore[attr-defined]
    command += [str(artifacts / function), str(runtime_libraries), module]
    done = subprocess.run(command, env={}, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    unzipped, zipped = sizes(artifacts / function)

    assert CONTENTS[package(function)] == contents
    assert CONTENTS[package(function)] - LATER[package(function)] == loaded
    assert not (artifacts / function / "aws_lambda_powertools" / "event_handler").exists()
    assert zipped <= LIMITS[package(function)]
    assert zipped < unzipped


@pytest.mark.parametrize("name", PACKAGES)
def test_a_zip_has_the_services_that_its_code_calls(name: str) -> None:
    """boto3 has a model of each service; the zip has no others, and a client without one could not be made."""
    named = {
        call.args[0].value
        for folder in PACKAGES[name]
        for path in (ROOT / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("boto3.client", "bounded_client")
        and isinstance(call.args[0], ast.Constant)
    }

    assert set(SERVICES[name]) == named


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_zip_has_the_certificates_that_its_clients_trust(function: str, artifacts: Path) -> None:
    """There is one bundle, whose hash is locked, with every certificate and without the comments."""
    (bundle,) = (artifacts / function).rglob("*.pem")
    packed, whole = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    packed.load_verify_locations(bundle)
    whole.load_verify_locations(certifi.where())

    assert Path("certifi/cacert.pem") == bundle.relative_to(artifacts / function)
    assert whole.get_ca_certs(binary_form=True) == packed.get_ca_certs(binary_form=True)
    assert "#" not in bundle.read_text()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_is_compiled_at_a_cold_start(function: str, artifacts: Path) -> None:
    """There is bytecode, and no file times are checked. Tracebacks show the paths in Lambda, not those of the machine that built it."""
    root = artifacts / function
    sources = list(root.rglob("*.py"))
    bytecode = [path.read_bytes() for path in root.rglob("*.pyc")]

    assert {package(function), "shared"} == {path.relative_to(root).parts[0] for path in sources}
    assert [] == [path for path in sources if not Path(importlib.util.cache_from_source(path)).exists()]
    assert {0b01} == {int.from_bytes(code[4:8], "little") for code in bytecode}
    assert [] == [code for code in bytecode if str(root).encode() in code]
