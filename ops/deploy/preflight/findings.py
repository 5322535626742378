"""Runs the checks of a preflight."""

import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.deploy.preflight.domains import domain, sdk
from ops.deploy.preflight.existing import credentials, names, stack
from ops.deploy.preflight.notifications import notifications
from ops.deploy.preflight.permissions import rights
from ops.deploy.preflight.quotas import concurrency, quotas, stream
from ops.deploy.preflight.references import boundary, network, secrets
from ops.deploy.preflight.settings import build, cost, parameters, region
from ops.deploy.preflight.survey import Deployment, Survey
from ops.deploy.preflight.treasure_data import treasure_data
from ops.diagnosis.check_result import CheckResult, fault, unknown
from ops.failure import Failure, explained

_LOOKS = (
    *(stack, rights, boundary, names, concurrency, stream, quotas),
    *(network, domain, sdk, notifications, secrets),
)


def findings(survey: Survey) -> Iterator[CheckResult]:
    """Run the checks and yield their results. Without credentials, checks of AWS are left out."""
    found = list(_guarded(credentials, survey))
    for settled in (parameters, cost, region, build):
        yield from settled(survey)
    yield from found
    if found[0].state == "ok":
        for look in _LOOKS:
            yield from _guarded(look, survey)
    yield from _guarded(treasure_data, survey)


def _guarded(look: Callable[[Survey], Iterator[CheckResult]], survey: Survey) -> Iterator[CheckResult]:
    """Yield the results of a check. An error of AWS makes its result unknown, or a fault for `credentials`."""
    try:
        yield from look(survey)
    except (ClientError, BotoCoreError) as error:
        found = fault if look is credentials else unknown
        yield found(look.__name__.replace("_", " "), explained(error).message)


def planned(config: Path, environment: str, region: str, stack: str, overrides: str) -> Deployment:
    """Return what `sam deploy` would deploy.

    Args:
        config: samconfig.toml; it need not exist.
        environment: its section, as for `--config-env`.
        region: the region; empty for the section's, or else the session's.
        stack: the stack's name; empty for the section's.
        overrides: parameters as for `--parameter-overrides`; empty for the section's.

    Raises:
        Failure: the file cannot be read, or names no stack.
    """
    found: dict[str, Any] = {}
    if config.exists():
        try:
            section = tomllib.loads(config.read_text()).get(environment, {})
        except tomllib.TOMLDecodeError as error:
            raise Failure(f"{config} is not TOML: {error}") from error
        for command in ("global", "deploy"):
            found |= section.get(command, {}).get("parameters", {})
    text = overrides or found.get("parameter_overrides", "")
    pairs = shlex.split(text if isinstance(text, str) else " ".join(text))
    given = dict(pair.partition("=")[::2] for pair in pairs)
    name = stack or found.get("stack_name", "")
    if not name:
        raise Failure(
            f"{config} has no stack_name in the section {environment}: add one, or use --stack-name"
        )
    where = region or found.get("region", "")
    return Deployment(name, where, given, config.parent / ".aws-sam" / "build")
