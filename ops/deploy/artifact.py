"""A release for one processor: the template and the functions' zips, as `make package` packs them."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from ops.failure import Failure
from ops.version import sluice_version

_FOLDERS = (Path(__file__).parents[1] / "artifacts", Path(__file__).parents[2] / "dist")
"""Where releases are: in an installation, and in a clone."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One release: its file, its template, whose functions name their zips in `CodeUri`, and the zips by these names."""

    file: Path
    template: Mapping[str, Any]
    zips: Mapping[str, bytes]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file that `make package` has written."""
        with zipfile.ZipFile(file) as packed:
            members = {name.rpartition("/")[2]: packed.read(name) for name in packed.namelist()}
        zips = {name: content for name, content in members.items() if name.endswith(".zip")}
        return cls(file, yaml.safe_load(members["template.yaml"]), zips)

    @classmethod
    def find(cls, architecture: str, folders: tuple[Path, ...] = _FOLDERS) -> Self:
        """Read the release of this version for a processor.

        Raises:
            Failure: there is none.
        """
        name = f"sluice-{sluice_version()}-{architecture}.zip"
        for folder in folders:
            if (folder / name).exists():
                return cls.read(folder / name)
        raise Failure(
            f"there is no {name} to deploy: in a clone, run `make package` first, or deploy with `sam deploy` (docs/deploying.md)"
        )

    def template_with(self, places: Mapping[str, str]) -> dict[str, Any]:
        """Return the template with each function's code at the place of its zip, an S3 URI by the name of the zip."""
        resources = {}
        for name, resource in self.template["Resources"].items():
            properties = resource.get("Properties", {})
            if "CodeUri" in properties:
                resource = resource | {"Properties": properties | {"CodeUri": places[properties["CodeUri"]]}}  # noqa: PLW2901 -- the same resource
            resources[name] = resource
        return {**self.template, "Resources": resources}
