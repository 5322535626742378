"""The secrets that sign write keys, and the key for hashed columns."""

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from itertools import chain, count

from botocore.exceptions import ClientError

from ops.failure import Failure
from ops.known_accounts import misnamed
from ops.stack import Stack
from shared import names, write_key

TAKES_EFFECT = "This takes effect within five minutes."


def signing_secrets(stack: Stack) -> dict[str, str]:
    """Return the valid signing secrets, by id, newest last.

    Raises:
        Failure: the stack's secret has none.
    """
    return signing_of(secret_members(stack))


def secret_members(stack: Stack) -> dict[str, str]:
    """Return the content of the stack's secret: the signing secrets and, if any, the key for hashed columns."""
    client = stack.client("secretsmanager")
    text = client.get_secret_value(SecretId=stack.outputs["WriteKeySecret"])["SecretString"]
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def signing_of(members: Mapping[str, object]) -> dict[str, str]:
    """Return the signing secrets among the members of the stack's secret, by id, newest last: those whose keys the ingest accepts.

    Raises:
        Failure: there are none.
    """
    signing = {
        secret_id: text
        for secret_id, text in members.items()
        if names.is_key_id(secret_id) and "-" not in secret_id and isinstance(text, str) and text
    }
    if not signing:
        raise Failure(
            'The secret WriteKeySecret has no signing secret. Store JSON such as {"k1": "…"} in it, with `aws secretsmanager put-secret-value` (docs/operations.md#keys)'
        )
    return signing


def newest_key(account: str, signing: dict[str, str], revoked: Collection[str]) -> str:
    """Return the first write key of an account under the newest secret, the last of `signing`, that the account has not revoked.

    Raises:
        Failure: no account can have this name.
    """
    if said := misnamed(account):
        raise Failure(said)
    secret_id = next(reversed(signing))
    key_ids = chain([secret_id], (f"{secret_id}-{serial}" for serial in count(2)))
    return write_key.sign(account, next(one for one in key_ids if one not in revoked), signing[secret_id])


def next_secret_id(signing: Collection[str], now: float) -> str:
    """Return the id of the next secret: the minute in which it is made (`now`, UNIX seconds), so that no id of a retired secret comes back."""
    minutes = (datetime.fromtimestamp(minute * 60, UTC) for minute in count(int(now // 60)))
    return next(made for minute in minutes if (made := f"k{minute:%y%m%d%H%M}") not in signing)


def store_members(stack: Stack, members: dict[str, str]) -> None:
    """Replace the content of the stack's secret.

    Raises:
        Failure: the secret is scheduled for deletion.
    """
    client = stack.client("secretsmanager")
    try:
        client.put_secret_value(SecretId=stack.outputs["WriteKeySecret"], SecretString=json.dumps(members))
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidRequestException":
            raise Failure(
                "the secret is scheduled for deletion: restore it with `aws secretsmanager restore-secret`"
            ) from error
        raise
