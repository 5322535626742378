"""What the looks of a preflight share: what is to be deployed, and whom they ask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import ClientError

from ops.template import sluice_template

_ABSENT = {
    *("NoSuchHostedZone", "NotFound", "NotFoundException", "ResourceNotFoundException"),
    "ValidationError",  # CloudFormation's
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is to be deployed.

    Attributes:
        stack: the stack's name.
        region: where.
        given: parameters that are not left at their defaults.
        build: folder of the built template, whose processor has to be the stack's.
    """

    stack: str
    region: str
    given: Mapping[str, str]
    build: Path


class Site(Protocol):
    """Treasure Data at one site, asked with one key."""

    def answers(self) -> bool:
        """Tell whether it is there at all."""
        ...

    def knows_key(self) -> bool:
        """Tell whether it knows the key."""
        ...

    def may_import(self, database: str) -> bool | None:
        """Tell whether the key may import into a database; None where no answer tells."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What is asked.

    Attributes:
        client: returns a boto3 client of a service in a region.
        regions: returns the regions that have a service.
        lookup: returns the DNS records of a name and type; None where DNS does not answer.
        site: returns Treasure Data at endpoints for imports and for everything else, asked with a key.
    """

    client: Callable[[str, str], Any]
    regions: Callable[[str], list[str]]
    lookup: Callable[[str, str], list[str] | None]
    site: Callable[[str, str, str], Site]


class Survey:
    """One deployment, looked at.

    Args:
        plan: what is to be deployed.
        world: what to ask.
        td_api_key: Treasure Data's key; empty where it is in the secret TdApiKeySecretArn, or not known.
        database: a database of Treasure Data that the key must be able to write to; empty for none.

    Attributes:
        template: of the stack.
        values: the parameters' values.
        types: of the resources that they make, by logical id.
        account: AWS's, once its credentials are known to be valid.
    """

    def __init__(self, plan: Deployment, world: World, td_api_key: str = "", database: str = "") -> None:
        self.plan = plan
        self.world = world
        self.td_api_key = td_api_key
        self.database = database
        self.template = sluice_template()
        known = {name: value for name, value in plan.given.items() if self.template.has_parameter(name)}
        self.values = self.template.parameters(known)
        self.types = self.template.resources(self.values)
        self.account = ""

    def client(self, service: str, region: str = "") -> Any:
        """Return a client of one of AWS's services, in the deployment's region unless another one is given."""
        return self.world.client(service, region or self.plan.region)

    def is_there(self) -> bool:
        """Tell whether the stack exists: then its names and quotas are its own."""
        found = described(self.client("cloudformation").describe_stacks, StackName=self.plan.stack)
        return found is not None and found["Stacks"][0]["StackStatus"] != "REVIEW_IN_PROGRESS"


def described(describe: Callable[..., Any], **arguments: str) -> Any:
    """Return what AWS describes; None if it says that there is no such thing."""
    try:
        return describe(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] in _ABSENT:
            return None
        raise
