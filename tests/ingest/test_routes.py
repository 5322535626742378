"""The entry point: which paths and methods exist, and what every response has."""

import json

import pytest

from doubles.aws_errors import client_error
from shared.telemetry import INGEST_COUNTERS, METRICS, QUIET_SECONDS
from tests.support.ingest import KEY, ORIGIN, Answer, Site, http_event
from tests.support.telemetry import Output


def ask(method: str, path: str, origins: tuple[str, ...] = ("*",), **headers: str) -> Answer:
    """Send a request without a query or body."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    return Site(origins).send(http_event(method, path, "", sent))


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/health", "application/json", b'{"status":"ok"}'),
        ("/robots.txt", "text/plain; charset=utf-8", b"User-agent: *\nDisallow: /\n"),
    ],
)
def test_some_paths_need_no_key_and_nothing_else(path: str, kind: str, body: bytes) -> None:
    """One shows that the function runs, the other that there is nothing to crawl."""
    site = Site()

    answer = site.get(path)

    assert (200, kind, body) == (answer.status, answer.headers["content-type"], answer.body)
    assert (path == "/health") == ("no-store" == answer.headers.get("cache-control"))
    assert ([], [], []) == (site.kinesis.calls, site.secrets.calls, site.sqs.calls)


NOWHERE = "/pixel /pixel.gif/ /v1/events/ /V1/events /V1/events/x /é /shop// /js/v3/event/shop/ /a/b/c"


@pytest.mark.parametrize("path", ["", *NOWHERE.split()])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_are_not_found(method: str, path: str) -> None:
    """Paths are matched exactly, and names in them must not be empty. The log has the code."""
    site = Site()
    answer = site.send(http_event(method, path))

    assert (404, "not_found", "not_found") == (answer.status, answer.code, answer.json["error"]["code"])
    assert ([("refused", "not_found")], {}) == (site.telemetry.codes(), site.telemetry.counts)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/v1/events", "POST, OPTIONS"),
        ("PUT", "/pixel.gif", "GET, HEAD, POST, OPTIONS"),
        ("GET", "/shop/pageviews", "POST, OPTIONS"),
        ("PUT", "/js/v3/event/shop/pageviews", "POST, GET, HEAD, OPTIONS"),
        ("get", "/health", "GET, HEAD, OPTIONS"),
        ("PUT", "/nowhere", "OPTIONS"),
        ("PUT", "*", "OPTIONS"),
    ],
)
def test_every_path_says_which_methods_it_allows(method: str, path: str, allowed: str) -> None:
    """The response to another method does (RFC 9110, 15.5.6), and that to a preflight, which may be cached for a day."""
    one = ask(method, path)
    answer = ask("OPTIONS", path, origin=ORIGIN, access_control_request_method="POST")

    if allowed != "OPTIONS":
        assert (405, "method_not_allowed", allowed) == (one.status, one.code, one.headers["allow"])
    assert (204, b"") == (answer.status, answer.body)
    assert {
        "allow": allowed,
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": (
            "accept, authorization, content-encoding, content-type, idempotency-key, user-agent,"
            " x-td-fetch-api, x-td-write-key, x-write-key"
        ),
        "access-control-max-age": "86400",
        "access-control-expose-headers": "retry-after, x-sluice-error",
    } == answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("OPTIONS", "/v1/events"), ("POST", "/v1/events"), ("GET", "/nowhere"), ("GET", "/health")],
)
def test_exact_origins_may_send_credentials(method: str, path: str) -> None:
    """An allowed origin is echoed, and `vary` says so. `*` beside exact origins still means any origin, without credentials."""
    headers = ask(method, path, ("https://other.example", ORIGIN), origin=ORIGIN).headers
    with_any = ask(method, path, (ORIGIN, "*"), origin=ORIGIN).headers

    allowed = {"access-control-allow-origin": ORIGIN, "access-control-allow-credentials": "true"}
    assert allowed | {"vary": "origin"} == {name: headers[name] for name in (*allowed, "vary")}
    assert ["*", None] == [with_any.get(name) for name in allowed]


STRANGERS = """
https://www.shop.example.evil.example
https://evil.example?https://www.shop.example
https://wwwxshop.example
http://www.shop.example
https://www.shop.example:444
https://www.shop.example/
https://WWW.shop.example
null
*
"""


@pytest.mark.parametrize("origin", ["", f"{ORIGIN}\n", f" {ORIGIN}", *STRANGERS.split()])
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_only_exact_origins_are_allowed(method: str, origin: str) -> None:
    """An origin that merely resembles an allowed one is not allowed."""
    headers = ask(method, "/v1/events", (ORIGIN,), origin=origin).headers

    assert "origin" == headers["vary"]
    assert [] == [name for name in headers if name.startswith("access-control")]


def test_events_from_foreign_pages_are_accepted() -> None:
    """CORS decides who reads responses, the key decides who sends: beacons and pixels come from any page anyway."""
    site = Site((ORIGIN,))

    assert 200 == site.post({"table": "pageviews"}, origin="https://elsewhere.example").status
    assert 1 == len(site.rows())


def test_an_internal_error_is_answered_and_logged() -> None:
    """An exception never reaches the gateway; it is counted and logged. An event that is not an HTTP request causes one."""
    site = Site((ORIGIN,))
    site.kinesis.faults = [RuntimeError("a fault")]

    answers = [site.pixel("", origin=ORIGIN)]
    answers += [site.send(event) for event in ({}, {"requestContext": {}}, {"requestContext": None})]

    told = [(answer.status, answer.code, answer.headers["retry-after"]) for answer in answers]
    assert [(500, "internal_error", "5")] * 4 == told
    assert ORIGIN == answers[0].headers["access-control-allow-origin"]
    assert {"RequestsFailed": 4, "UnforeseenErrors": 4} == site.telemetry.counts
    assert ("unexpected exception", "RuntimeError") in site.telemetry.codes()


def test_nothing_personal_is_written() -> None:
    """Logs and metrics contain no key, address, path, query, header or body, whatever goes wrong."""
    site = Site()
    handler, clock = site.handler, site.clock
    output = Output(clock)
    secret = "PERSONAL"
    for part in (handler, handler._intake, site.stream, site.stream._overflow, site.keyring):
        part._telemetry = output.telemetry  # type: ignore[attr-defined]  # they all have it
    names = ("user-agent", "referer", "cookie", "x-forwarded-for", "authorization")
    headers = dict.fromkeys(names, f"Bearer https://{secret}.example")

    def send(method: str, path: str, query: str = "", body: bytes | None = None, **more: str) -> None:
        event = http_event(method, path, query, headers | more, body)
        event["requestContext"]["http"]["sourceIp"] = secret
        with output.telemetry.invocation(None):
            handler(event, None)
        clock.time += QUIET_SECONDS

    send("GET", f"/{secret}", secret)
    send("POST", "/v1/events", "", b'{"a": "' + secret.encode())
    send("POST", "/v1/events", "", b'[{"table": "PERSONAL"}, "PERSONAL"]', authorization=f"Bearer {KEY}")
    send("GET", "/pixel.gif", f"k={KEY}&t={secret}&{secret}={secret}")
    send("GET", "/pixel.gif", f"k={secret}&t=pageviews")
    down = client_error("InternalFailure", "PutRecord", secret, 500)
    site.kinesis.faults = [RuntimeError(secret), down] * 2
    site.sqs.faults, site.sqs.sticky = [client_error("InternalFailure", "SendMessage", secret, 500)], True
    site.secrets.faults = [client_error("AccessDenied", "GetSecretValue", secret)]
    for seconds in (0, 0, 1000):
        clock.time += seconds
        send("GET", "/pixel.gif", f"k={KEY}&t=pageviews&a={secret}")

    assert {
        ("INFO", "refused"),
        ("WARNING", "refused"),
        ("ERROR", "unexpected exception"),
        ("WARNING", "the stream did not acknowledge a put"),
        ("WARNING", "the overflow queue did not store an envelope"),
        ("WARNING", "the signing secrets cannot be read"),
    } == {(line["level"], line["message"]) for line in output.log()}
    counted = {name for line in output.metrics() for name in line if name[0].isupper()}
    assert counted <= {*INGEST_COUNTERS, *METRICS}
    for hidden in (secret, KEY, "first secret"):
        assert hidden not in json.dumps(output.lines())
