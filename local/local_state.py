"""What the page shows only for a local stack: its parts, outages, addresses and refused requests."""

from collections.abc import Mapping
from typing import Any

from local.stack import LocalStack
from ops.logs import answers


def local_state(stack: LocalStack, outages: Mapping[str, float]) -> dict[str, Any]:
    """Return it as JSON values; `outages` are those in progress, with the seconds left of each."""
    return {
        "parts": [
            {
                "name": part.name,
                "running": part.running,
                "paused": part.is_paused,
                "restarts": part.restarts,
                "ended": part.ended,
            }
            for part in stack.parts
        ],
        "outages": dict(outages),
        "refused": dict(answers.read(stack.folder).refused),
        "addresses": {
            "Gateway": stack.addresses.gateway,
            "Treasure Data": stack.addresses.treasure_data,
            "AWS": stack.addresses.aws,
            "Valkey": stack.addresses.redis,
        },
    }
