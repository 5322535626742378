"""What docs/openapi.yaml says about a response."""

import json
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.support.ingest import Answer

PATH = Path(__file__).parents[2] / "docs" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text())
COMPONENTS = DOCUMENT["components"]


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference points to."""
    while "$ref" in value:
        _, _, kind, name = value["$ref"].split("/")
        value = COMPONENTS[kind][name]
    return value


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """Return whether a value matches a schema."""
    return Draft202012Validator({**schema, "components": COMPONENTS}).is_valid(value)


def differences(answer: Answer, method: str, path: str) -> list[str]:
    """Return which of a response's headers, or its body, do not match the document. A status or type that it lacks is a KeyError."""
    described = resolved(DOCUMENT["paths"][path][method.lower()]["responses"][str(answer.status)])
    headers = {name: resolved(header) for name, header in described.get("headers", {}).items()}
    found = [
        name
        for name, header in headers.items()
        if (header.get("required") or name in answer.headers)
        and not valid(answer.headers.get(name), header["schema"])
    ]
    if not answer.body:
        return found + ["body"] * (method != "HEAD" and "content" in described)
    kind = answer.headers["content-type"].partition(";")[0]
    schema = described["content"][kind].get("schema", {})
    text = answer.body.decode("latin-1")
    return found + ["body"] * (not valid(json.loads(text) if kind == "application/json" else text, schema))
