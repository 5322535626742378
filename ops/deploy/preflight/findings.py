"""Runs the checks of a preflight."""

from collections.abc import Callable, Iterator

from botocore.exceptions import BotoCoreError, ClientError

from ops.deploy.preflight.domains import domain, sdk
from ops.deploy.preflight.existing import credentials, names, stack
from ops.deploy.preflight.permissions import rights
from ops.deploy.preflight.quotas import concurrency, quotas, stream
from ops.deploy.preflight.references import boundary, network, notifications, secrets
from ops.deploy.preflight.settings import build, cost, parameters, region
from ops.deploy.preflight.survey import Survey
from ops.deploy.preflight.treasure_data import treasure_data
from ops.failure import explained
from ops.help_page import RIGHTS_TO_DEPLOY
from ops.state.finding import Finding, fault, unknown

_LOOKS = (
    *(stack, rights, boundary, names, concurrency, stream, quotas),
    *(network, domain, sdk, notifications, secrets),
)


def findings(survey: Survey) -> Iterator[Finding]:
    """Run the checks and yield their results. Without credentials, checks of AWS are left out."""
    found = list(_guarded(credentials, survey))
    for settled in (parameters, cost, region, build):
        yield from settled(survey)
    yield from found
    if found[0].state == "ok":
        for look in _LOOKS:
            yield from _guarded(look, survey)
    yield from _guarded(treasure_data, survey)


def _guarded(look: Callable[[Survey], Iterator[Finding]], survey: Survey) -> Iterator[Finding]:
    """Yield the results of a check. An error of AWS makes its result unknown, or a fault for `credentials`."""
    try:
        yield from look(survey)
    except (ClientError, BotoCoreError) as error:
        found = fault if look is credentials else unknown
        yield found(look.__name__.replace("_", " "), explained(error, RIGHTS_TO_DEPLOY).message)
