"""The Lambda functions of template.yaml, and the environment that each has in the local stack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doubles.iam import REGION
from local.resources import CREDENTIALS, Resources
from ops.template import sluice_template

TEMPLATE = sluice_template()
_LOCAL = {"Stage": "local", "Network": "external", "StreamMode": "PROVISIONED"}
"""Parameters that the local stack sets. Its Redis has a URL, like an external one, and its stream has a fixed size."""


@dataclass(frozen=True, slots=True)
class Function:
    """One Lambda function.

    Attributes:
        name: its logical id in template.yaml.
        handler: `module.function`.
        service: its name in logs and metrics.
        timeout: seconds that an invocation may take.
        memory: MB.
    """

    name: str
    handler: str
    service: str
    timeout: int
    memory: int


def _read(name: str, service: str) -> Function:
    properties = TEMPLATE.properties(name)
    return Function(name, properties["Handler"], service, properties["Timeout"], properties["MemorySize"])


FUNCTIONS = {name: _read(name, service) for name, service in TEMPLATE.services().items()}
"""Functions by logical id."""

INGEST = FUNCTIONS["IngestFunction"]
WORKER = FUNCTIONS["WorkerFunction"]
SENDER = FUNCTIONS["SenderFunction"]
DRAIN = FUNCTIONS["DrainFunction"]
ADMIN = FUNCTIONS["AdminFunction"]
SCALE = FUNCTIONS["ScaleFunction"]


def variables(function: Function, resources: Resources, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that the template gives the function.

    Args:
        function: one of FUNCTIONS.
        resources: what the template's references to resources refer to.
        overrides: values of template parameters that differ from the local stack's.

    Raises:
        TemplateError: the template has no such parameter, or a variable cannot be resolved.
    """
    resolved = TEMPLATE.resolve(TEMPLATE.variables(function.name), template_values(resources, overrides))
    return {name: str(value) for name, value in resolved.items()}


def treasure_data_at(url: str) -> dict[str, str]:
    """Return overrides that send a function's requests for Treasure Data to a URL."""
    return {"TdImportEndpoint": url, "TdApiEndpoint": url}


def event_source(function: Function, name: str, resources: Resources) -> dict[str, Any]:
    """Return the properties of one of the function's event sources.

    Args:
        function: one of FUNCTIONS.
        name: the event source's name in the template.
        resources: what the template's references to resources refer to.

    Raises:
        TemplateError: a property cannot be resolved.
    """
    events = TEMPLATE.properties(function.name)["Events"]
    properties: dict[str, Any] = TEMPLATE.resolve(events[name]["Properties"], template_values(resources, {}))
    return properties


def lambda_variables(function: Function, endpoint: str) -> dict[str, str]:
    """Return the environment variables that Lambda itself sets, and the endpoint of AWS."""
    return CREDENTIALS | {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    }


def template_values(resources: Resources, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return what the template's references to parameters and resources refer to.

    Raises:
        TemplateError: the template has no such parameter.
    """
    return TEMPLATE.parameters(_LOCAL | dict(overrides)) | resources.references()
