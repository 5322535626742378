"""The emulator's application, run in its own environment, with types of resources that it does not know or not wholly.

They exist in name only: they can be made, referred to, changed and deleted, and do nothing. So the template is deployed
as it is, in modes that the emulator cannot carry out as well. Caches are where the variable CACHE_PORT says.
"""

import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from ministack.app import app  # type: ignore[import-not-found]  # lives in the emulator's environment
from ministack.services.cloudformation import provisioners  # type: ignore[import-not-found]  # likewise

__all__ = ["app"]

# Attributes that other resources get, with what stands for them.
_TYPES: Mapping[str, Mapping[str, str]] = {
    # It refuses metric math.
    "AWS::CloudWatch::Alarm": {"Arn": "arn:aws:cloudwatch:us-east-1:000000000000:alarm:named"},
    "AWS::CodeDeploy::Application": {},
    "AWS::CodeDeploy::DeploymentGroup": {},
    "AWS::ElastiCache::ServerlessCache": {
        "ARN": "arn:aws:elasticache:us-east-1:000000000000:serverlesscache:sluice",
        "Endpoint.Address": "127.0.0.1",
        "Endpoint.Port": os.environ["CACHE_PORT"],
    },
}


def _create(logical_id: str, _properties: Any, stack: str, attributes: Mapping[str, str]) -> tuple[str, Any]:
    return f"{stack}-{logical_id}-{uuid4().hex[:8]}", dict(attributes)


for _name, _attributes in _TYPES.items():
    provisioners._RESOURCE_HANDLERS[_name] = {
        "create": lambda name, properties, stack, made=_attributes: _create(name, properties, stack, made),
        "update": lambda physical_id, *_others, made=_attributes, **_more: (physical_id, dict(made)),
        "delete": lambda *_arguments: None,
    }
