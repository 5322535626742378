"""Write keys: the public credential in a page or app, which can be verified offline.

`<account>.<key id>.<mac>`. The key id is the id of the signing secret, optionally followed by `-` and a serial number, so that
an account can get a new key under the same secret. The mac is HMAC-SHA256 of `<account>.<key id>`, truncated to 128 bits, in
base64url without padding.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import NamedTuple

from shared import names
from shared.errors import InvalidKeyError, UnknownSecretError

HASH_KEY = ".hash"
"""Member of the secret with the signing secrets that holds the key for hashed columns. No write key is signed with it."""
PROXY_SECRET = ".proxy"  # noqa: S105 -- the member's name
"""Member that holds the value that trusted CloudFront distributions send. No write key is signed with it either."""

FORGET_KEY = ".forget"
"""Member that holds the key of the hashes by which persons to forget are recognised."""

_MAC_BYTES = 16
_MAX_LENGTH = 64 + 1 + 21 + 1 + 22


class WriteKey(NamedTuple):
    """A verified write key."""

    account: str
    key_id: str


def secret_id(key_id: str) -> str:
    """Return the id of the secret that signs keys with this id."""
    return key_id.partition("-")[0]


def sign(account: str, key_id: str, secret: str) -> str:
    """Return the write key of an account.

    Raises:
        ValueError: the account or the key id is not a legal name.
    """
    if not names.is_account(account):
        raise ValueError(f"{account!r} is not a legal account name: use 3 to 64 characters of a-z, 0-9 and _")
    if not names.is_key_id(key_id):
        raise ValueError(
            f"{key_id!r} is not a legal key id: use 1 to 16 characters of a-z and 0-9, optionally followed by - and up to four digits"
        )
    return f"{account}.{key_id}.{_mac(account, key_id, secret)}"


def verify(key: str, secrets: Mapping[str, str]) -> WriteKey:
    """Verify a write key against the currently valid secrets by id, comparing its mac in constant time.

    Raises:
        UnknownSecretError: the secret it names is not among them.
        InvalidKeyError: it is malformed or its signature is wrong.
    """
    if key != key.strip():
        raise InvalidKeyError("this write key begins or ends with white space")
    account, key_id, mac = [*key.split("."), "", "", ""][:3] if len(key) <= _MAX_LENGTH else ("", "", "")
    secret = secrets.get(secret_id(key_id))
    if key.count(".") != 2 or not names.is_account(account) or not names.is_key_id(key_id):
        raise InvalidKeyError("this is not a write key: use <account>.<key id>.<mac>")
    if secret is None:
        raise UnknownSecretError("the secret that signed this write key is not currently valid")
    if not hmac.compare_digest(_mac(account, key_id, secret).encode(), mac.encode(errors="replace")):
        raise InvalidKeyError("this write key's signature is wrong")
    return WriteKey(account, key_id)


def _mac(account: str, key_id: str, secret: str) -> str:
    digest = hmac.digest(secret.encode(), f"{account}.{key_id}".encode(), "sha256")
    return urlsafe_b64encode(digest[:_MAC_BYTES]).rstrip(b"=").decode()
