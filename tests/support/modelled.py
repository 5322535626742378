"""Real boto3 clients with scripted answers."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import boto3

NOT_FOUND = {"Error": {"Code": "ResourceNotFoundException", "Message": "it is not there"}}


def answered(service: str, region: str, answer: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> Any:
    """Return a real client whose calls are answered by a function of the operation's model and parameters; `Error` is raised."""
    client = boto3.client(  # type: ignore[call-overload]  # not a literal
        service, region_name=region, aws_access_key_id="key", aws_secret_access_key="secret"
    )
    asked: list[dict[str, Any]] = []

    def respond(model: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        found = answer(model, asked.pop())
        return SimpleNamespace(status_code=404 if "Error" in found else 200), {"ResponseMetadata": {}} | found

    client.meta.events.register("before-parameter-build", lambda params, **_: asked.append(params))
    client.meta.events.register("before-call", respond)
    return client


class Modelled:
    """Clients whose parameters botocore validates. Answers are by operation, a list's in order and its last again; without one, nothing is found."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers = {name: one if isinstance(one, list) else [one] for name, one in answers.items()}

    def __call__(self, service: str) -> Any:
        """Return a client of a service."""
        return answered(service, "eu-central-1", self._answer)

    def _answer(self, model: Any, asked: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((model.name, asked))
        waiting = self._answers.get(model.name, [NOT_FOUND])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


DEPLOYED = {
    "DescribeStacks": {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Parameters": []}]},
    "CreateChangeSet": {},
    "DescribeChangeSet": {"Status": "CREATE_COMPLETE"},
    "ExecuteChangeSet": {},
}
"""The answers about a change of a stack that succeeds."""
