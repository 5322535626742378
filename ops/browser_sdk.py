"""The built browser SDK, and what a page carries of it."""

import json
from dataclasses import dataclass
from pathlib import Path

import requests

from ops.failure import Failure

FOLDER = Path(__file__).parents[1] / "sdk" / "dist"
"""Where `make sdk` puts it in a clone, and where an installation has it."""
SNIPPET = "snippet.html"
PAGE_TABLE = "pageviews"
"""Where the SDK sends page views unless it is told otherwise."""

_HTTP_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Script:
    """One built script: its name, and the path that it is hosted under."""

    name: str
    path: str


class Build:
    """What `make sdk` has made.

    Args:
        folder: where.

    Raises:
        Failure: nothing was made there.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
        except FileNotFoundError:
            raise Failure(
                "the browser SDK is not built: `make sdk` in a clone, and install the command again"
            ) from None
        self.version: str = manifest["version"]
        self.scripts = [Script(name, file["path"]) for name, file in manifest["files"].items()]

    def read(self, name: str) -> bytes:
        """Return one of its files."""
        return (self._folder / name).read_bytes()


def snippet(template: str, *, endpoint: str, key: str, host: str, table: str = PAGE_TABLE) -> str:
    """Return what a page carries.

    Args:
        template: the SDK's `snippet.html`.
        endpoint: where events go.
        key: the write key.
        host: the URL under which the scripts lie.
        table: where page views go.
    """
    if table != PAGE_TABLE:
        template = template.replace("auto:true", f"auto:true,pageTable:'{table}'")
    for name, value in (("endpoint", endpoint), ("key", key), ("sdk", host)):
        template = template.replace(f"{{{{{name}}}}}", value)
    return template.strip()


def published(url: str) -> str | None:
    """Return the snippet's template that stands beside published scripts; None where none was published, or can be had."""
    try:
        answer = requests.get(f"{url}/{SNIPPET}", timeout=_HTTP_SECONDS)
    except requests.RequestException:
        return None
    return answer.text if answer.status_code == 200 else None
