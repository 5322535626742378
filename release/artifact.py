"""`make package`: packs the output of `sam build` into one file per processor, and all of them into a wheel with the command.

Either can be deployed without this repository. The same commit gives the same bytes: names are sorted, and neither times nor owners are stored.
"""

import argparse
import hashlib
import io
import stat
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, override

import yaml

from ops.template import expanded
from release.build import build
from release.function_zip import ARCHITECTURES
from release.wheel import WheelError, build_wheel
from shared.errors import SluiceError

_MOMENT = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_FILES = ("CHANGELOG.md", "LICENSE")


class _Plain(yaml.SafeDumper):
    """Writes no anchors, because CloudFormation does not support them."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


class ReleaseError(SluiceError):
    """The build cannot be packed."""


def archive(members: Mapping[str, bytes]) -> bytes:
    """Return a zip of files. Its bytes depend only on their names and content."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # UNIX, so that the mode below counts
            entry.external_attr = (stat.S_IFREG | 0o644) << 16  # Lambda has to be able to read it
            file.writestr(entry, members[name])
    return packed.getvalue()


def folder(path: Path) -> bytes:
    """Return a zip of a folder's files."""
    return archive(
        {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    )


def pack(built: Path, architecture: str, version: str, root: Path = Path()) -> bytes:
    """Return the artifact: a zip with the template, the functions' zips, the changelog and the license.

    Args:
        built: the output folder of `sam build`.
        architecture: the architecture that it was built for.
        version: the version of this release.
        root: the repository.

    Raises:
        ReleaseError: functions with the same entry module differ.
    """
    template = expanded((root / "template.yaml").read_text())
    zips: dict[str, bytes] = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        package = resource["Properties"]["Handler"].partition(".")[0]
        code = folder(built / name)
        if zips.setdefault(f"{package}.zip", code) != code:
            raise ReleaseError(f"{name} was built differently from another function of {package}")
        resource["Properties"]["CodeUri"] = f"{package}.zip"
        del resource["Metadata"]  # how to build it
    del template["Globals"]["Function"]["CodeUri"]
    template["Metadata"]["Sluice"] = {"Version": version, "Architecture": architecture}
    template["Parameters"]["Architecture"] |= {"AllowedValues": [architecture], "Default": architecture}
    members = {name: (root / name).read_bytes() for name in _FILES} | zips
    members["template.yaml"] = yaml.dump(
        _long_form(template), Dumper=_Plain, sort_keys=False, width=120
    ).encode()
    return archive({f"sluice-{version}-{architecture}/{name}": text for name, text in members.items()})


def _long_form(value: Any) -> Any:
    """Return a part of the template with each `Fn::GetAtt` as a list, which its long form requires."""
    match value:
        case {"Fn::GetAtt": str(name)}:
            return {"Fn::GetAtt": name.split(".", 1)}
        case dict():
            return {key: _long_form(member) for key, member in value.items()}
        case list():
            return [_long_form(member) for member in value]
    return value


def main(arguments: list[str] | None = None) -> None:
    """Build for each processor, and write the artifacts, a wheel of the command with the artifacts in it, and the checksums."""
    parser = argparse.ArgumentParser(prog="python -m release.artifact", description=main.__doc__)
    parser.add_argument("--to", type=Path, default=Path("dist"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    options.to.mkdir(parents=True, exist_ok=True)
    artifacts: dict[str, bytes] = {}
    for architecture in sorted(ARCHITECTURES):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                build(architecture, Path(scratch))
            except subprocess.CalledProcessError as error:
                sys.exit(error.returncode)
            name = f"sluice-{version}-{architecture}.zip"
            artifacts[name] = pack(Path(scratch), architecture, version)
            (options.to / name).write_bytes(artifacts[name])
    try:
        wheel = build_wheel(artifacts, options.to)
    except WheelError as error:
        sys.exit(f"Error: {error}")
    sums = "".join(
        f"{hashlib.sha256((options.to / name).read_bytes()).hexdigest()}  {name}\n"
        for name in (*artifacts, wheel.name)
    )
    sys.stdout.write(sums)
    (options.to / "SHA256SUMS").write_text(sums)


if __name__ == "__main__":
    main()
