"""The built browser SDK, and its snippet for pages."""

import json
from pathlib import Path

import requests

from ops.failure import Failure

FOLDER = Path(__file__).parents[1] / "sdk" / "dist"
"""The built SDK: where `make sdk` puts it in a clone, and where it is in an installation."""
SNIPPET = "snippet.html"
PAGE_TABLE = "pageviews"
"""The SDK's default table for page views."""

_HTTP_SECONDS = 5


class Build:
    """The output of `make sdk` in a folder: its version, and the paths that its scripts are hosted under, by name.

    Raises:
        Failure: the SDK is not built.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
        except FileNotFoundError:
            raise Failure(
                "the browser SDK is not built: run `make sdk` in a clone, and if `sluice` is installed, install it again"
            ) from None
        self.version: str = manifest["version"]
        self.scripts: dict[str, str] = {name: file["path"] for name, file in manifest["files"].items()}

    def read(self, name: str) -> bytes:
        """Return one of its files."""
        return (self._folder / name).read_bytes()


def snippet(template: str, *, endpoint: str, key: str, host: str, table: str = PAGE_TABLE) -> str:
    """Return the snippet for pages that send to the URL `endpoint`, with the scripts of the URL `host`, from the SDK's `snippet.html`."""
    if table != PAGE_TABLE:
        template = template.replace("auto:true", f"auto:true,pageTable:'{table}'")
    for name, value in (("endpoint", endpoint), ("key", key), ("sdk", host)):
        template = template.replace(f"{{{{{name}}}}}", value)
    return template.strip()


def published(url: str) -> str | None:
    """Return the published template of the snippet; None if it is not published or cannot be fetched."""
    try:
        answer = requests.get(f"{url}/{SNIPPET}", timeout=_HTTP_SECONDS)
    except requests.RequestException:
        return None
    return answer.text if answer.status_code == 200 else None
