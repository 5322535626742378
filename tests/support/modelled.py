"""Real boto3 clients with scripted answers."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import boto3

NOT_FOUND = {"Error": {"Code": "ResourceNotFoundException", "Message": "it is not there"}}


class Modelled:
    """Real boto3 clients with scripted answers: botocore validates every parameter.

    Args:
        answers: by operation. A list is answered in order, and its last item repeats. An operation without an answer fails as not found.

    Attributes:
        asked: the operations that were called, each with its parameters.
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers = {
            name: answer if isinstance(answer, list) else [answer] for name, answer in answers.items()
        }

    def __call__(self, service: str) -> Any:
        """Return a client of a service."""
        client = boto3.client(  # type: ignore[call-overload]  # not a literal
            service, region_name="eu-central-1", aws_access_key_id="key", aws_secret_access_key="secret"
        )
        client.meta.events.register("before-parameter-build", self._note)
        client.meta.events.register("before-call", self._answer)
        return client

    def _note(self, *, model: Any, params: dict[str, Any], **_: Any) -> None:
        self.asked.append((model.name, params))

    def _answer(self, *, model: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        waiting = self._answers.get(model.name, [NOT_FOUND])
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return SimpleNamespace(status_code=404 if answer is NOT_FOUND else 200), {
            "ResponseMetadata": {}
        } | answer


DEPLOYED = {
    "DescribeStacks": {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Parameters": []}]},
    "CreateChangeSet": {},
    "DescribeChangeSet": {"Status": "CREATE_COMPLETE"},
    "ExecuteChangeSet": {},
}
"""The answers about a change of a stack that succeeds."""
