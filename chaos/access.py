"""Limits each function to the permissions that template.yaml grants, and revokes single ones for a while."""

from typing import Any, NoReturn, override

from botocore.exceptions import ClientError

from chaos.effects import Effects
from chaos.trouble import Kind
from doubles.iam import Authorized
from local.functions import DRAIN, INGEST, SENDER, WORKER, Function
from local.resources import Resources
from local.roles import role_of

RESOURCES = Resources(
    endpoint="",
    queue_url="https://sqs.invalid/000000000000/overflow",
    stream="sluice",
    ledger_table="ledger",
    data_bucket="aside",
    write_key_secret="write-keys",
    td_api_key_secret="td-api-key",
)

# Actions that Lambda itself performs under a function's role.
_BY_LAMBDA = {
    *("kinesis:DescribeStream", "logs:CreateLogStream", "logs:PutLogEvents"),
    *("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"),
}

ACTIONS: tuple[str, ...] = tuple(
    f"{function.name} {action}"
    for function in (INGEST, WORKER, SENDER, DRAIN)
    for action in sorted(role_of(function, RESOURCES).actions - _BY_LAMBDA)
)
"""The permissions that can be revoked: each a function's name and an action."""


class Limited(Authorized):
    """A client that denies whatever a function's role does not allow, or a fault currently revokes."""

    def __init__(self, function: Function, effects: Effects, service: str, client: Any) -> None:
        super().__init__(service, client, role_of(function, RESOURCES))
        self._name = function.name
        self._effects = effects

    @override
    def _allows(self, action: str, resource: str) -> bool:
        if self._effects.trouble.strike(Kind.ACCESS_DENIED, f"{self._name} {action}"):
            return False
        return super()._allows(action, resource)

    @override
    def _refuse(self, what: str, error: ClientError) -> NoReturn:
        self._effects.fail(what, error, 0.02)
