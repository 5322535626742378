"""The local stack's additions to the console's page: buttons that send events and break parts, a demo site, the browser SDK."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from local.website import Website
from ops import browser_sdk
from ops.console.server import ConsolePage, Data, Doing, RefusedError
from shared.errors import InvalidError

FOLDER = Path(__file__).parent / "page"


def local_page(
    site: "Beside",
    data: Data,
    actions: Doing,
    order: Callable[[str, float], Mapping[str, Any]],
    gateway: str = "",
) -> ConsolePage:
    """Return the console's page for the local stack.

    Args:
        site: serves the other paths.
        data: the page's data, by path.
        actions: the page's actions, by path.
        order: breaks a part for some seconds and returns the outages in progress. `POST /break` with {"target", "seconds"} calls it.
        gateway: the URL to which the page sends events.
    """

    def break_(document: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return order(str(document["target"]), float(document["seconds"]))
        except (InvalidError, KeyError, TypeError, ValueError) as error:
            raise RefusedError(400, str(error)) from error

    sections = (FOLDER / "sections.html").read_text()
    connects = [gateway] if gateway else []
    return ConsolePage(data, {**actions, "/break": break_}, beside=site, sections=sections, connects=connects)


class Beside:
    """A WSGI application: the demo site at `/site/…`, the browser SDK at `/sdk/VERSION/…`, the page's scripts at `/local/…`.

    Any origin may load the SDK, as from a deployed stack.

    Args:
        sdk: the folder of the built SDK.
    """

    def __init__(self, site: Website, sdk: Path = browser_sdk.FOLDER) -> None:
        self._site = site
        self._files = Website("", {}, FOLDER)
        self._sdk = Website("", {}, sdk)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        return self._answer(Request(environ).path)(environ, start_response)

    def _answer(self, path: str) -> Response:
        if path.startswith("/site/"):
            return self._site.answer(path.removeprefix("/site"))
        if path.startswith("/sdk/"):
            answer = self._sdk.answer(path.rpartition("/")[2])
            answer.access_control_allow_origin = "*"
            return answer
        if path.startswith("/local/"):
            return self._files.answer(path.removeprefix("/local"))
        return NotFound().get_response()
