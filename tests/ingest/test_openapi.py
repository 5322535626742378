"""docs/openapi.yaml is valid and describes exactly what the ingest does."""

import json
import re

import pytest
from openapi_spec_validator import validate

from ingest import app, intake, request
from ingest.refusal import ANSWERS, EVENT_CODES
from shared import json_codec, rows
from tests.support.ingest import Site
from tests.support.openapi import COMPONENTS, DOCUMENT, PATH, differences, resolved, valid

OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def test_the_document_has_every_route_and_code() -> None:
    """The document is valid OpenAPI 3.1, and has the routes that the ingest serves and the codes of requests and of events."""
    validate(DOCUMENT)
    routes = {(route.method, route.path) for route in app.ROUTES}
    assert routes == {(method, path) for method, path, _ in OPERATIONS}
    assert set(ANSWERS) == set(COMPONENTS["schemas"]["Code"]["enum"])
    assert set(EVENT_CODES) == set(COMPONENTS["schemas"]["EventCode"]["enum"])


def test_codes_are_listed_under_their_status() -> None:
    """Each is listed, under no other, and responses that name one have its header, except to HEAD on a health check."""
    named = set()
    for _, path, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            codes = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", response["description"])) & set(ANSWERS)
            assert {status} >= {str(ANSWERS[code].status) for code in codes}
            named |= codes
            if path != "/health/ready" and int(status) >= 400:
                assert "x-sluice-error" in resolved(response).get("headers", {}), (path, status)

    assert set(ANSWERS) - {"method_not_allowed"} == named


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        *[(request, "Body") for request in ("batch", "array", "event")],
        *[("verdict", "Verdict"), ("nothing", "NothingAccepted"), ("refusal", "Refusal")],
    ],
)
def test_examples_match_their_schemas(name: str, schema: str) -> None:
    """The ingest accepts every event of an example of a request."""
    example = COMPONENTS["examples"][name]["value"]

    assert valid(example, COMPONENTS["schemas"][schema])
    if schema == "Body":
        answer = Site().post(example)
        assert (200, []) == (answer.status, answer.json["rejected"])


def test_responses_in_an_outage_match_the_document() -> None:
    """The pixel and the events API answer as documented without secrets, and after an internal error."""
    locked, broken = Site(), Site()
    locked.secret.text = ""
    broken.kinesis.faults, broken.kinesis.sticky = [RuntimeError()], True
    answers = [("GET", "/pixel.gif", site.pixel("")) for site in (locked, broken)]
    answers += [("POST", "/v1/events", site.post([{"table": "pageviews"}])) for site in (locked, broken)]

    assert [503, 500] * 2 == [answer.status for _, _, answer in answers]
    assert [[]] * 4 == [differences(answer, method, path) for method, path, answer in answers]


PAGE = (PATH.parent / "http.md").read_text()


def test_the_page_names_every_path() -> None:
    """The first table of docs/http.md has every path."""
    overview = PAGE.partition("| route | use |")[2].partition("\n\n")[0]

    assert {route.path for route in app.ROUTES} == set(re.findall(r"[ `](/[^ `]*)`", overview))


def test_requests_on_the_page_get_the_responses_shown() -> None:
    """Every JSON response in docs/http.md matches a schema, and every curl request gets the response that the page shows."""
    shown = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    sent = [body.encode() for body in re.findall(r"-d '([^']*)'", PAGE)]

    assert 3 == len(shown)
    for answer in shown:
        assert 1 == sum(valid(answer, COMPONENTS["schemas"][name]) for name in ("Verdict", "Refusal"))
    assert [one for one in shown if "accepted" in one] == [Site().post(body).json for body in sent]


def test_the_pages_name_every_limit() -> None:
    """The limits in docs/http.md and in the document equal the values in the code."""
    table = PAGE.partition("## Limits")[2].partition("\n## ")[0]
    schemas = COMPONENTS["schemas"]

    assert {
        rows.MAX_EVENT_BYTES // 1024,
        rows.MAX_COLUMNS,
        json_codec.MAX_DEPTH,
        intake.MAX_EVENTS,
        intake.MAX_TABLES,
        request.MAX_RAW_BYTES // 1024**2,
        request.MAX_INFLATED_BYTES // 1024**2,
    } == {int(number) for number in re.findall(r"\| (\d+)(?: KiB| MiB| levels)? \|", table)}
    assert intake.MAX_EVENTS == schemas["Batch"]["properties"]["events"]["maxItems"]
    assert intake.MAX_EVENTS == schemas["Body"]["anyOf"][1]["maxItems"]
    assert f"{json_codec.MAX_DEPTH} levels" in ANSWERS["too_deep"].meaning
