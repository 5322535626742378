"""Reads secrets from Secrets Manager and keeps them in memory."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from shared.clock import Clock
from shared.errors import SecretUnavailableError, error_code

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_SECONDS_BETWEEN_READS = 30.0


@dataclass(eq=False)
class Secret:
    """One secret; `text` is its value when it was last read, empty before the first read."""

    _secrets: "SecretsManagerClient"
    _id: str
    _clock: Clock
    text: str = field(default="", init=False)
    _read_at: float = field(default=float("-inf"), init=False)

    def get(self, max_age: float = float("inf")) -> str:
        """Return the text; read it at the first call, and again when it is older than `max_age` seconds."""
        if not self.text:
            self._read()
        elif self._clock.now() - self._read_at > max_age:
            with suppress(SecretUnavailableError):
                self._read()
        return self.text

    def changed(self, used: str) -> bool:
        """Return whether the text differs from `used`. If it does not, read it again first, but at most every 30 s."""
        if self.text == used and self._clock.now() - self._read_at >= _SECONDS_BETWEEN_READS:
            try:
                self._read()
            except SecretUnavailableError:
                return False
        return self.text != used

    def _read(self) -> None:
        self._read_at = self._clock.now()
        try:
            text = self._secrets.get_secret_value(SecretId=self._id)["SecretString"].strip()
        except (ClientError, BotoCoreError, KeyError) as error:
            code = error_code(error)
            if code in ("ResourceNotFoundException", "KeyError"):
                raise SecretUnavailableError(
                    f"the secret {self._id} has no value yet: put one there"
                ) from error
            raise SecretUnavailableError(f"the secret {self._id} cannot be read: {code}") from error
        if not text or not text.isprintable() or not text.isascii():
            raise SecretUnavailableError(
                f"the secret {self._id} holds no usable text: put the right value there"
            )
        self.text = text
