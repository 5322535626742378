"""Reads secrets from Secrets Manager and keeps them in memory."""

from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from shared.clock import Clock
from shared.errors import SecretUnavailableError, error_code

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_SECONDS_BETWEEN_READS = 30.0


@dataclass(eq=False)
class Secret:
    """One secret; `text` is its value when it was last read, empty before the first read. Of several threads, one reads it for all."""

    _secrets: "SecretsManagerClient"
    _id: str
    _clock: Clock
    text: str = field(default="", init=False)
    _read_at: float = field(default=float("-inf"), init=False)
    _failed: tuple[float, str] = field(
        default=(float("-inf"), ""), init=False
    )  # when the last read did, and why
    _lock: Lock = field(default_factory=Lock, init=False)

    def get(self, max_age: float = float("inf")) -> str:
        """Return the text; read it at the first call, and again when it is older than `max_age` seconds."""
        asked_at = self._clock.now()
        if self.text and asked_at - self._read_at <= max_age:
            return self.text  # even while another thread reads it
        with self._lock:
            failed_at, failure = self._failed
            if not self.text and asked_at < failed_at:  # another thread has read it meanwhile, in vain
                raise SecretUnavailableError(failure)
            if not self.text:
                self._read()
            elif self._clock.now() - self._read_at > max_age:
                with suppress(SecretUnavailableError):
                    self._read()
            return self.text

    def changed(self, used: str) -> bool:
        """Return whether the text differs from `used`. If it does not, read it again first, but at most every 30 s."""
        with self._lock:
            if self.text == used and self._clock.now() - self._read_at >= _SECONDS_BETWEEN_READS:
                try:
                    self._read()
                except SecretUnavailableError:
                    return False
            return self.text != used

    def _read(self) -> None:
        self._read_at = self._clock.now()
        try:
            self.text = self._current()
        except SecretUnavailableError as error:
            self._failed = self._clock.now(), str(error)
            raise

    def _current(self) -> str:
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
        return text
