"""The rights of each function, as template.yaml gives them, and how single ones are taken away for a while."""

from typing import Any, NoReturn

from botocore.exceptions import ClientError

from chaos.effects import Effects
from chaos.trouble import Kind
from doubles.iam import Authorized
from local.functions import DRAIN, INGEST, REDRIVE, WORKER, Function
from local.resources import Resources
from local.roles import role_of

RESOURCES = Resources(
    endpoint="",
    queue_url="https://sqs.invalid/000000000000/overflow",
    stream="sluice",
    ledger_table="ledger",
    aside_bucket="aside",
    write_key_secret="write-keys",
    td_api_key_secret="td-api-key",
)

# What Lambda itself does with a role, before it invokes a function.
_BY_LAMBDA = {
    *("kinesis:DescribeStream", "logs:CreateLogStream", "logs:PutLogEvents"),
    *("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"),
}

ACTIONS: tuple[str, ...] = tuple(
    f"{function.name} {action}"
    for function in (INGEST, WORKER, REDRIVE, DRAIN)
    for action in sorted(role_of(function, RESOURCES).actions - _BY_LAMBDA)
)
"""What can be taken away: a function and an action."""


class Access:
    """Makes clients with the rights of one function.

    Args:
        function: whose role.
        effects: of the world; a refused call takes time, too.
    """

    def __init__(self, function: Function, effects: Effects) -> None:
        self._function = function
        self._effects = effects

    def client(self, service: str, client: Any) -> Any:
        """Return a client that is refused what the role does not allow, and what has been taken away now."""
        return _Client(service, client, self._function, self._effects)


class _Client(Authorized):
    def __init__(self, service: str, client: Any, function: Function, effects: Effects) -> None:
        super().__init__(service, client, role_of(function, RESOURCES))
        self._name = function.name
        self._effects = effects

    def _allows(self, action: str, resource: str) -> bool:
        if self._effects.trouble.strike(Kind.ACCESS_DENIED, f"{self._name} {action}"):
            return False
        return super()._allows(action, resource)

    def _refuse(self, what: str, error: ClientError) -> NoReturn:
        self._effects.fail(what, error, 0.02)
