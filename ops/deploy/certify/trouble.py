"""Breaks parts of a stage for a certification, such as the API key and the connection to Redis, and restores them."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from ops import known_accounts
from ops.deploy.certify.restore import Repair
from ops.deploy.certify.stage import RESTARTED, DeployedStage, Pace, wait_until_updated
from ops.deploy.certify.step import Impossible
from ops.deploy.change_set import ChangeSet
from ops.failure import Failure
from ops.stack import Stack
from shared.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_elasticache import ElastiCacheClient

_NOWHERE = "rediss://127.0.0.1:1"
_GROUP_SECONDS = 300.0
_DELIVERING = ("WorkerFunction", "SenderFunction")


@contextmanager
def new_api_key(stage: DeployedStage) -> Iterator[None]:
    """Give the functions an invalid API key."""
    if stage.stack.parameters.get("TdApiKeySecretArn"):
        raise Impossible("the API key is in a secret outside the stack, which others may use")

    def wrong(key: str) -> str:
        account, _, _ = key.rpartition("/")
        return f"{account or 1}/{secrets.token_hex(20)}"

    with _restarted(stage, _other_secret(stage, "TdApiKeySecret", wrong), *_DELIVERING, "AdminFunction"):
        yield


@contextmanager
def without_redis(stage: DeployedStage) -> Iterator[None]:
    """Cut off Redis from whatever delivers: remove its user from the cache's group, or store a URL where nothing answers."""
    if stage.stack.parameters.get("RedisUrlSecretArn"):
        raise Impossible("the Redis URL is in a secret outside the stack, which others may use")
    is_managed = stage.stack.parameters["Network"] == "managed"
    breaking = _no_reader(stage) if is_managed else _other_secret(stage, "RedisUrlSecret", lambda _: _NOWHERE)
    with _restarted(stage, breaking, *_DELIVERING):
        yield


@contextmanager
def _restarted(
    stage: DeployedStage, breaking: AbstractContextManager[None], *functions: str
) -> Iterator[None]:
    """Restart functions once something is broken, and again once it is restored: running ones keep what they have read."""
    with ExitStack() as repairs:
        for one in functions:
            repairs.enter_context(stage.repairs.breaking("sandboxes", output=one))
        repairs.enter_context(breaking)
        for one in functions:
            stage.restart(one)
        yield


@contextmanager
def _other_secret(stage: DeployedStage, output: str, other: Callable[[str], str]) -> Iterator[None]:
    """Store another value in a secret, made from the one that it has."""
    client, secret = stage.stack.client("secretsmanager"), stage.stack.outputs[output]
    old = client.get_secret_value(SecretId=secret)
    with stage.repairs.breaking("secret", output=output, version=old["VersionId"]):
        client.put_secret_value(SecretId=secret, SecretString=other(old["SecretString"]))
        yield


@contextmanager
def _no_reader(stage: DeployedStage) -> Iterator[None]:
    """Remove the functions' user from the managed cache's group."""
    elasticache, name = stage.stack.client("elasticache"), stage.stack.name
    with stage.repairs.breaking("redis user", group=name, user=f"{name}-reader"):
        elasticache.modify_user_group(UserGroupId=name, UserIdsToRemove=[f"{name}-reader"])
        wait_for_group(elasticache, name, stage.clock, stage.pace)
        yield


@contextmanager
def deployed_with(
    stage: DeployedStage, name: str, value: str, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Deploy another value of a parameter for the duration of the block. `waiting` is called during the deploy."""
    change = ChangeSet(
        stage.stack.client("cloudformation"), stage.stack.name, stage.clock, stage.pace.deploy_poll
    )
    with stage.repairs.breaking("parameter", name=name, value=stage.stack.parameters[name]):
        change.deploy(f"sluice-certify-{uuid4().hex[:8]}", {name: value}, waiting=waiting)
        yield


def wait_for_group(elasticache: "ElastiCacheClient", group: str, clock: Clock, pace: Pace) -> None:
    """Wait until a change of a user group has taken effect.

    Raises:
        Failure: it has not after five minutes.
    """
    status = pace.until(
        lambda: elasticache.describe_user_groups(UserGroupId=group)["UserGroups"][0]["Status"],
        lambda status: status == "active",
        clock,
        _GROUP_SECONDS,
    )
    if status != "active":
        raise Failure(f"ElastiCache has not finished changing the user group {group} after five minutes")


def _restore_secret(stack: Stack, how: Mapping[str, str]) -> None:
    """Make an earlier version of a secret the current one."""
    client, secret = stack.client("secretsmanager"), stack.outputs[how["output"]]
    current = client.get_secret_value(SecretId=secret)["VersionId"]
    if current != how["version"]:
        client.update_secret_version_stage(
            SecretId=secret,
            VersionStage="AWSCURRENT",
            MoveToVersionId=how["version"],
            RemoveFromVersionId=current,
        )


def _restore_sandboxes(stack: Stack, pace: Pace, how: Mapping[str, str]) -> None:
    """Remove the variable that restarted a function. This restarts it once more, with everything restored."""
    client, name = stack.client("lambda"), stack.outputs[how["output"]]
    variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    if variables.pop(RESTARTED, None) is not None:
        wait_until_updated(client, name, pace)
        client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
        wait_until_updated(client, name, pace)


def _restore_redis_user(stack: Stack, clock: Clock, pace: Pace, how: Mapping[str, str]) -> None:
    """Add the reader to the cache's user group again."""
    elasticache, group = stack.client("elasticache"), how["group"]
    wait_for_group(elasticache, group, clock, pace)
    users = elasticache.describe_user_groups(UserGroupId=group)["UserGroups"][0]["UserIds"]
    if how["user"] not in users:
        elasticache.modify_user_group(UserGroupId=group, UserIdsToAdd=[how["user"]])
        wait_for_group(elasticache, group, clock, pace)


def _restore_parameter(change: ChangeSet, how: Mapping[str, str]) -> None:
    """Deploy a parameter's old value, once a deploy that was interrupted has ended."""
    change.settle()
    if change.parameters()[how["name"]] != how["value"]:
        change.deploy(f"sluice-certify-{uuid4().hex[:8]}", {how["name"]: how["value"]})


def _restore_account(stack: Stack, how: Mapping[str, str]) -> None:
    """Remove an account that a step has added."""
    known = known_accounts.known(stack).accounts
    if how["name"] in known:
        rest = {name: one.to_fields() for name, one in known.items() if name != how["name"]}
        stack.administer(do="apply", accounts=rest)


def repairs_of(stack: Stack, clock: Clock, pace: Pace) -> dict[str, Repair]:
    """Return the repair of each kind of thing that a step breaks."""
    change = ChangeSet(stack.client("cloudformation"), stack.name, clock, pace.deploy_poll)
    return {
        "secret": Repair(
            partial(_restore_secret, stack),
            lambda how: (
                f"aws secretsmanager update-secret-version-stage --secret-id {stack.outputs[how['output']]} --version-stage AWSCURRENT "
                f"--move-to-version-id {how['version']} --remove-from-version-id <the current one>"
            ),
        ),
        "sandboxes": Repair(
            partial(_restore_sandboxes, stack, pace),
            lambda how: (
                f"remove the variable {RESTARTED} from the function {stack.outputs[how['output']]} (it is harmless)"
            ),
        ),
        "redis user": Repair(
            partial(_restore_redis_user, stack, clock, pace),
            lambda how: (
                f"aws elasticache modify-user-group --user-group-id {how['group']} --user-ids-to-add {how['user']}"
            ),
        ),
        "parameter": Repair(
            partial(_restore_parameter, change), lambda how: f"sam deploy (with {how['name']}={how['value']})"
        ),
        "account": Repair(
            partial(_restore_account, stack),
            lambda how: f"sluice accounts apply accounts.yaml {stack.option} (it removes {how['name']})",
        ),
    }
