"""Opens a deployed stage for a certification, if it may be tried on that stage."""

import re
from datetime import UTC, datetime
from uuid import uuid4

from ops.deploy.certify.restore import Repairs
from ops.deploy.certify.stage import EMULATED, ON_AWS, DeployedStage, account_of, foreign_traffic
from ops.deploy.stack_api import StackApi
from ops.deploy.td_client import TreasureDataQueries, td_client
from ops.failure import Failure
from ops.signing_secrets import newest_key, signing_secrets
from ops.stack import Stack
from shared.clock import Clock

_PROD = re.compile(r"(^|[^a-z])prod(uction)?($|[^a-z])")


def check_stage(stack: Stack, clock: Clock, *, even_prod: bool, despite_traffic: bool) -> None:
    """Refuse a stage that others rely on.

    Raises:
        Failure: it is called prod, or others have sent events to it recently.
    """
    if not even_prod and (stack.parameters.get("Stage") == "prod" or _PROD.search(stack.name)):
        raise Failure(
            f"{stack.name} is called prod, and a certification replaces its API key and cuts off Redis for minutes: use another "
            "stage, or add --even-prod"
        )
    if not despite_traffic and (sender := foreign_traffic(stack, clock)):
        raise Failure(
            f"{stack.name} received events of {sender} in the last hour, and a certification would hold such events for minutes: "
            "use another stage, or add --despite-traffic"
        )


def open_stage(
    stack: Stack, account: str | None, repairs: Repairs, clock: Clock, *, endpoint: str
) -> DeployedStage:
    """Return the stage with everything that its steps need. Without an account, one is chosen; for AWS, the endpoint is empty."""
    name, found = account_of(stack, account)
    settings = stack.client("lambda").get_function_configuration(
        FunctionName=stack.outputs["WorkerFunction"]
    )["Environment"]["Variables"]
    secret = stack.client("secretsmanager").get_secret_value(SecretId=stack.outputs["TdApiKeySecret"])
    td = td_client(
        settings["TD_IMPORT_ENDPOINT"], settings["TD_API_ENDPOINT"], secret["SecretString"].strip()
    )
    at = datetime.fromtimestamp(clock.now(), UTC)
    return DeployedStage(
        stack=stack,
        run=f"certify-{at:%Y%m%dt%H%M%S}-{uuid4().hex[:6]}",
        account=name,
        database=found.database,
        key=newest_key(name, signing_secrets(stack), found.revoked_key_ids),
        queries=TreasureDataQueries(td, clock, found.database),
        api=StackApi.of(stack, clock),
        is_emulated=bool(endpoint),
        repairs=repairs,
        clock=clock,
        pace=EMULATED if endpoint else ON_AWS,
    )
