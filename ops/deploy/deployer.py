"""The permissions needed to deploy: CloudFormation creates, changes and deletes resources with the caller's permissions.

docs/policies has them: what the handlers of each type of resource name, without what the template does not use. A test compares them
with AWS's own schemas.
"""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("policies")
PARTS = ("deploy", "compute", "support", "cache", "domain", "removal")
"""The policies of those who deploy: a managed policy holds 6,144 characters, too few for all that they need."""


@cache
def policy(part: str) -> dict[str, Any]:
    """Return the IAM policy of one of PARTS; STACK stands for the stack's name, and `<…>` for the value of a parameter.

    The id of each statement begins with what it is for: a service of CloudFormation, or Stack (every deploy), Sam (`sam deploy`),
    Release (`sluice deploy`), Preflight or Removal.
    """
    found: dict[str, Any] = json.loads((_FOLDER / f"{part}.json").read_text())
    return found


def needs(types: Iterable[str], *, is_release: bool = False) -> list[tuple[str, tuple[str, ...]]]:
    """Return the resource and the actions of each statement that a stack with these resource types needs.

    Args:
        types: the types.
        is_release: whether `sluice deploy` deploys it, instead of `sam deploy`.
    """
    wanted = ("Stack", "Release" if is_release else "Sam", *{kind.split("::")[1] for kind in types})
    statements = [one for part in PARTS for one in policy(part)["Statement"]]
    return [(one["Resource"], tuple(one["Action"])) for one in statements if one["Sid"].startswith(wanted)]
