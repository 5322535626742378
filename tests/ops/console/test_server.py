"""Only the person who opened the console can reach it: pages of other sites and other names of this machine cannot."""

import json
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from ops.console.server import ConsolePage, RefusedError

TOKEN = "tok"
HERE = "http://127.0.0.1:8888"
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Page:
    """A console with minimal data and actions."""

    def __init__(self, token: str = TOKEN, **more: Any) -> None:
        self.done: list[dict[str, Any]] = []
        data = {"/state.json": lambda asked: {"asked": dict(asked)}}
        self._client = Client(ConsolePage(data, {"/drop": self._drop}, token=token, **more))

    def _drop(self, asked: Any) -> dict[str, Any]:
        if asked.get("rows") == 0:
            raise RefusedError(409, "nothing was done")
        self.done.append(asked)
        return {"rows": 1}

    def get(self, path: str, base: str = HERE, **headers: str) -> TestResponse:
        """Send a GET."""
        return self._client.get(path, base_url=base, headers=headers)

    def post(
        self, path: str, body: str = "{}", kind: str = "application/json", **headers: str
    ) -> TestResponse:
        """Send a POST."""
        given = {"content-type": kind, **BEARER, **headers}
        return self._client.post(path, base_url=HERE, headers=given, data=body)


def test_data_needs_the_token_and_the_page_does_not() -> None:
    """The page's own files contain nothing about a stack, and no path leads out of their folder. `localhost` is typed, too."""
    page = Page()

    assert 200 == page.get("/").status_code
    assert 200 == page.get("/page.js").status_code
    assert {"asked": {"after": "7"}} == page.get("/state.json?after=7", **BEARER).json
    assert 200 == page.get("/state.json", base="http://localhost:8888", **BEARER).status_code
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN + "x"}):
        refused = page.get("/state.json", **headers)
        assert (401, True) == (refused.status_code, "contains the token" in refused.text)
    for path in ("/../console.py", "/%2e%2e/console.py", "/page", "/index.html", "//etc/passwd"):
        assert 404 == page.get(path).status_code


@pytest.mark.parametrize("path", ["/", "/page.js", "/state.json"])
@pytest.mark.parametrize(
    "base", ["http://evil.example:8888", "http://127.0.0.1.evil.example", "http://127.0.0.1:1"]
)
def test_another_name_of_this_machine_is_refused(path: str, base: str) -> None:
    """A site whose owner points its name at 127.0.0.1 could otherwise read the console (DNS rebinding)."""
    environ = {"base_url": HERE, "headers": {"host": base.removeprefix("http://"), **BEARER}}

    assert 403 == Page()._client.get(path, **environ).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_from_other_sites_are_refused(headers: dict[str, str]) -> None:
    """This holds even if they know the token."""
    page = Page()

    assert 403 == page.get("/state.json", **BEARER, **headers).status_code
    assert 403 == page.post("/drop", **headers).status_code
    assert [] == page.done


def test_no_other_site_can_read_a_response() -> None:
    """Whatever an event contains, no script in it runs, no image in it loads, and no other page can frame this one."""
    page = Page(connects=["http://127.0.0.1:8700"])
    asked = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    preflight = page._client.options("/state.json", base_url=HERE, headers=asked)
    policy = page.get("/").headers["content-security-policy"]

    assert 403 == preflight.status_code
    for answer in (preflight, page.get("/"), page.get("/state.json", **BEARER)):
        assert [] == [name for name, _ in answer.headers if name.lower().startswith("access-control")]
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "connect-src 'self' http://127.0.0.1:8700;" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("{}", "text/plain", 415),
        ("{}", "application/x-www-form-urlencoded", 415),
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ('{"a": "' + "a" * 200_000 + '"}', "application/json", 413),
        ('{"rows": 0}', "application/json", 409),
    ],
)
def test_an_action_needs_a_json_object(body: str, kind: str, status: int) -> None:
    """HTML forms on other sites cannot send one; the response says what is wrong."""
    page = Page()
    answer = page.post("/drop", body, kind)

    assert (status, True) == (answer.status_code, bool(json.loads(answer.text)["error"]))
    assert [] == page.done


def test_actions_need_post_and_data_needs_get() -> None:
    """Following a link changes nothing. A console that is read-only has no actions."""
    page = Page()
    reading = Client(ConsolePage({}, token=TOKEN))

    assert 405 == page.get("/drop", **BEARER).status_code
    assert 405 == page.post("/state.json").status_code
    assert 200 == page.post("/drop", '{"rows": 1}').status_code
    assert [{"rows": 1}] == page.done
    assert 404 == reading.post("/drop", base_url=HERE, json={}, headers=BEARER).status_code
