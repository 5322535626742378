"""What the checks of a preflight share: the planned deployment, and access to AWS, DNS and Treasure Data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from botocore.client import BaseClient

from ops.deploy.td_client import SiteClient
from ops.failure import if_there
from ops.template import Template, sluice_template
from shared.aws_clients import MakesClient, method_makes_client


@dataclass(frozen=True, slots=True)
class Deployment:
    """A planned deployment: the parameters that are given, and the folder of `sam build`, None if a release is deployed."""

    stack: str
    region: str
    given: Mapping[str, str]
    build: Path | None


@dataclass(slots=True)
class Survey:
    """One planned deployment, for the checks, and access to AWS, DNS and Treasure Data.

    Attributes:
        make_client: returns a boto3 client of a service in a region.
        regions: returns the regions that have a service.
        lookup: returns the DNS records of a name and type; None if DNS does not answer.
        site: returns Treasure Data, given the endpoint for imports, the endpoint for everything else, and a key.
        td_api_key: Treasure Data's API key; empty if it is in the secret TdApiKeySecretArn, or unknown.
        database: a Treasure Data database that the key must be able to write to; empty for none.
        live: the values of the existing stack's parameters; None if there is no stack. Known once `look_at_stack` has run.
        account: the AWS account's id, known once `credentials` has run.
    """

    plan: Deployment
    make_client: MakesClient
    regions: Callable[[str], list[str]]
    lookup: Callable[[str, str], list[str] | None]
    site: Callable[[str, str, str], SiteClient]
    td_api_key: str = ""
    database: str = ""
    template: Template = field(default_factory=sluice_template)
    live: Mapping[str, str] | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    account: str = ""

    @method_makes_client
    def client(self, service: str, region: str = "") -> BaseClient:
        """Return a boto3 client of a service, in the deployment's region unless another one is given."""
        return self.make_client(service, region or self.plan.region)

    @property
    def overrides(self) -> dict[str, str]:
        """The parameters that the deploy sets. `sam deploy` keeps the values of an existing stack's other parameters."""
        return self.template.known(self.live or {}) | dict(self.plan.given)

    @property
    def values(self) -> dict[str, str]:
        """The values of all parameters after the deploy."""
        return self.template.parameters(self.template.known(self.overrides))

    @property
    def types(self) -> dict[str, str]:
        """The types of the stack's resources after the deploy, by logical id."""
        return self.template.resources(self.values)

    @property
    def new_types(self) -> dict[str, str]:
        """The types of the resources that the deploy creates, by logical id."""
        if self.live is None:
            return self.types
        before = self.template.resources(self.template.parameters(self.template.known(self.live)))
        return {name: kind for name, kind in self.types.items() if name not in before}

    def look_at_stack(self) -> None:
        """Read the existing stack's parameters and outputs. Its names and quotas are already in use by itself."""
        found = if_there(self.client("cloudformation").describe_stacks, StackName=self.plan.stack)
        if found is None or found["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS":
            return
        stack = found["Stacks"][0]
        if stack.get("Description") in (None, "", self.template.description):
            self.live = {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", ())}
            self.outputs = {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", ())}
