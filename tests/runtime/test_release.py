"""The artifact of a release."""

import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from samcli.yamlhelper import yaml_parse

from local.lambda_runtime import ARCHITECTURE
from release import artifact, function_zip
from tests.support.sam import FUNCTIONS, ROOT, properties, template

pytestmark = pytest.mark.xdist_group("runtime")


@pytest.fixture(scope="module")
def content(artifacts: Path) -> dict[str, bytes]:
    """Return the artifact's files by name, without their common folder."""
    with zipfile.ZipFile(io.BytesIO(artifact.pack(artifacts, ARCHITECTURE, "1.2.3", ROOT))) as packed:
        names = packed.namelist()
        assert {f"sluice-1.2.3-{ARCHITECTURE}"} == {name.partition("/")[0] for name in names}
        return {name.partition("/")[2]: packed.read(name) for name in names}


@pytest.fixture(scope="module")
def packaged(content: dict[str, bytes]) -> dict[str, Any]:
    """Return the artifact's template."""
    return yaml_parse(content["template.yaml"].decode())


def test_the_artifact_has_everything_that_a_deploy_needs(content: dict[str, bytes]) -> None:
    """Functions of the same package share a zip. YAML anchors are resolved, because CloudFormation does not support them."""
    zips = {"ingest.zip", "scaler.zip", "worker.zip"}

    assert zips | {"template.yaml", "CHANGELOG.md", "LICENSE"} == content.keys()
    assert b"&id" not in content["template.yaml"]
    assert len(content["template.yaml"]) < 1_000_000  # CloudFormation's limit for a template in a bucket


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_handler_is_found(content: dict[str, bytes], packaged: dict[str, Any], function: str) -> None:
    """The template names the zip, and the zip has the handler's module, which Lambda may read."""
    code = packaged["Resources"][function]["Properties"]["CodeUri"]
    module = properties(function)["Handler"].rpartition(".")[0].replace(".", "/")
    with zipfile.ZipFile(io.BytesIO(content[code])) as packed:
        entry = packed.getinfo(f"{module}.py")

    assert 0o644 == entry.external_attr >> 16 & 0o777


def test_the_template_matches_the_repository(packaged: dict[str, Any]) -> None:
    """Only the code's location and the processor differ, so nobody can choose the wrong processor."""
    ours = json.loads(json.dumps(template()))
    for name in FUNCTIONS:
        del ours["Resources"][name]["Metadata"]
        code = packaged["Resources"][name]["Properties"]["CodeUri"]
        ours["Resources"][name]["Properties"]["CodeUri"] = code
    del ours["Globals"]["Function"]["CodeUri"]
    ours["Parameters"]["Architecture"] |= {"AllowedValues": [ARCHITECTURE], "Default": ARCHITECTURE}
    ours["Metadata"]["Sluice"] = {"Version": "1.2.3", "Architecture": ARCHITECTURE}

    assert ours == json.loads(json.dumps(packaged))


def test_the_same_files_give_the_same_bytes() -> None:
    """The time and the order of the files do not matter."""
    files = {"b": b"2", "a": b"1"}

    assert artifact.archive(files) == artifact.archive(dict(sorted(files.items())))
    assert b"\x00\x00\x21\x00" in artifact.archive(files)  # the earliest moment that a zip can hold


def test_the_same_sources_give_the_same_build(tmp_path: Path) -> None:
    """Dependencies are locked by hash, and bytecode depends on the source alone."""
    uv = shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")
    for name in ("one", "two"):
        function_zip.package("ingest", ARCHITECTURE, tmp_path / name, uv, ROOT)

    assert "3.13" == ".".join(map(str, sys.version_info[:2]))
    assert artifact.folder(tmp_path / "one") == artifact.folder(tmp_path / "two")
