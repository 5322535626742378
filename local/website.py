"""Serves the demo site, whose pages send events as real pages do."""

import json
import mimetypes
from collections.abc import Iterable, Mapping
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.exceptions import NotFound
from werkzeug.security import safe_join
from werkzeug.wrappers import Request, Response

FOLDER = Path(__file__).parent / "site"


class Website:
    """A WSGI application that serves the pages.

    It replaces `{{endpoint}}`, `{{snippet}}` and the names of write keys in HTML; scripts read the endpoint and the
    keys from `config.js`.

    Args:
        endpoint: where the pages send their events, for example `http://127.0.0.1:8000`.
        keys: write keys by name.
        folder: the folder of the pages.
        snippet: HTML that loads the browser SDK.
    """

    def __init__(
        self, endpoint: str, keys: Mapping[str, str], folder: Path = FOLDER, *, snippet: str = ""
    ) -> None:
        self._values = {"endpoint": endpoint, "snippet": snippet, **keys}
        self._config = f"const SLUICE = {json.dumps({'endpoint': endpoint, 'keys': dict(keys)}, indent=1)};\n"
        self._folder = folder

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        return self.answer(Request(environ).path)(environ, start_response)

    def answer(self, path: str) -> Response:
        """Return the response for a path."""
        name = path.removeprefix("/")
        if name == "config.js":
            return _file(self._config.encode(), name)
        found = safe_join(str(self._folder), name)
        if found is None or not Path(found).is_file():
            return NotFound().get_response()
        data = Path(found).read_bytes()
        if name.endswith(".html"):
            for value, text in self._values.items():
                data = data.replace(f"{{{{{value}}}}}".encode(), text.encode())
        return _file(data, name)


def _file(data: bytes, name: str) -> Response:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(data, content_type=f"{kind}; charset=utf-8", headers={"cache-control": "no-store"})
