"""Verifies write keys with signing secrets from Secrets Manager, stored as JSON: `{"<secret id>": "<secret>"}`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared import json_codec, write_key
from shared.clock import Clock
from shared.errors import SecretUnavailableError, UnknownSecretError, aws_errors, error_code
from shared.telemetry import Telemetry
from shared.write_key import WriteKey

if TYPE_CHECKING:
    from ingest.aws_client import SecretsManagerClient

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 1, "read_timeout": 1}
"""Client options. A later request retries a failed read."""
FRESH_SECONDS = 300
"""How long secrets are used before they are read again. A removed secret stops working within this time."""
PAUSE_SECONDS = 10
"""Minimum time between attempts to read the secrets. It limits how many requests a failing Secrets Manager, or keys with made-up
secret ids, can slow down."""
PAUSE_WITHOUT_SECRETS_SECONDS = 1
"""The same while there are no secrets at all and every request is rejected."""

_MAX_VERIFIED = 1000  # cached until the secrets are read again


class Keyring:
    """Verifies write keys.

    If the secrets cannot be refreshed, the old ones stay in use: rotation is delayed, and no event is lost.

    Args:
        client: reads the secrets.
        secret: the secret's name or ARN.
        clock: measures the secrets' age.
        telemetry: counts failures.
    """

    def __init__(
        self, client: "SecretsManagerClient", secret: str, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._client = client
        self._secret = secret
        self._clock = clock
        self._telemetry = telemetry
        self._secrets: Mapping[str, str] = {}
        self._verified: dict[str, WriteKey] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")

    def verify(self, key: str) -> WriteKey:
        """Verify a write key.

        Raises:
            InvalidKeyError: it was not signed with a currently valid secret.
            SecretUnavailableError: the signing secrets have never been read.
        """
        if not 0 <= self._clock.now() - self._read_at < FRESH_SECONDS:  # clocks can be set back
            self.refresh()
        if not self._secrets:
            raise SecretUnavailableError("the signing secrets have never been read")
        verified = self._verified.get(key)
        if verified is None:
            verified = self._verify(key)
            if len(self._verified) >= _MAX_VERIFIED:
                self._verified.clear()
            self._verified[key] = verified
        return verified

    def _verify(self, key: str) -> WriteKey:
        try:
            return write_key.verify(key, self._secrets)
        except UnknownSecretError:  # the secret may be new
            if not self.refresh():
                raise
            return write_key.verify(key, self._secrets)

    def hash_key(self) -> bytes | None:
        """Return the key for hashed columns (the member write_key.HASH_KEY), None if there is none."""
        secret = self._secrets.get(write_key.HASH_KEY)
        return secret.encode() if secret else None

    def forget_key(self) -> bytes | None:
        """Return the key of the hashes by which persons are refused (the member write_key.FORGET_KEY), None if there is none."""
        secret = self._secrets.get(write_key.FORGET_KEY)
        return secret.encode() if secret else None

    def proxy_secret(self) -> str | None:
        """Return the secret that trusted distributions send (the member write_key.PROXY_SECRET), None if there is none."""
        if not self._secrets:
            self.refresh()
        return self._secrets.get(write_key.PROXY_SECRET)

    def refresh(self) -> bool:
        """Read the secrets unless the last attempt was too recent; return whether they were read."""
        pause = PAUSE_SECONDS if self._secrets else PAUSE_WITHOUT_SECRETS_SECONDS
        now = self._clock.now()
        if 0 <= now - self._tried_at < pause:
            return False
        self._tried_at = now
        try:
            answer = self._client.get_secret_value(SecretId=self._secret)
            self._secrets = _secrets(answer["SecretString"])
            self._verified = {}
        except aws_errors(KeyError, ValueError) as error:
            self._telemetry.count("KeyringFailures")
            self._telemetry.warning("the signing secrets cannot be read", code=error_code(error))
            return False
        self._read_at = self._clock.now()
        return True


def _secrets(text: str) -> Mapping[str, str]:
    """Parse the secrets by id; empty ones are ignored, because anyone could sign with them."""
    value = json_codec.parse(text.encode())
    if not isinstance(value, dict):
        raise ValueError("the secret is not a JSON object")  # noqa: TRY004 -- a value, not a type, of ours
    secrets = {secret_id: secret for secret_id, secret in value.items() if isinstance(secret, str) and secret}
    if all(secret_id.startswith(".") for secret_id in secrets):  # such members sign no write key
        raise ValueError("the secret holds no signing secret")
    return secrets
