"""Reads secrets from Secrets Manager and keeps them in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from shared.clock import Clock
from shared.errors import SecretUnavailableError, aws_errors, error_code

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_SECONDS_BETWEEN_READS = 30.0
_LOOK_SECONDS = 0.01


@dataclass(eq=False)
class Secret:
    """One secret; `text` is its value when it was last read, empty before the first read. Of several threads, one reads it for all."""

    _secrets: "SecretsManagerClient"
    _id: str
    _clock: Clock
    text: str = field(default="", init=False)
    _failure: str = field(default="", init=False)
    _read_at: float = field(default=float("-inf"), init=False)
    _reads: int = field(default=0, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def get(self, max_age: float = float("inf")) -> str:
        """Return the text; read it at the first call, and again when it is older than `max_age` seconds."""
        now, reads = self._clock.now(), self._reads
        if self.text and now - self._read_at <= max_age:
            return self.text  # even while another thread reads it
        with self._alone():
            if self._reads == reads:  # no other thread has read it meanwhile
                self._read(now)
            if not self.text:
                raise SecretUnavailableError(self._failure)
            return self.text

    def changed(self, used: str) -> bool:
        """Return whether the text differs from `used`. If it does not, read it again first, but at most every 30 s."""
        now = self._clock.now()
        with self._alone():
            if self.text == used and now - self._read_at >= _SECONDS_BETWEEN_READS:
                self._read(now)
            return self.text != used

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait, by the clock that was passed in, until no other thread reads the secret."""
        while not self._lock.acquire(blocking=False):
            self._clock.sleep(_LOOK_SECONDS)
        try:
            yield
        finally:
            self._lock.release()

    def _read(self, now: float) -> None:
        """Read the text, or note why it cannot be read."""
        self._read_at = now
        try:
            text = self._secrets.get_secret_value(SecretId=self._id)["SecretString"].strip()
        except aws_errors(KeyError) as error:
            code = error_code(error)
            is_missing = code in ("ResourceNotFoundException", "KeyError")
            why = "has no value yet: put one there" if is_missing else f"cannot be read: {code}"
            self._failure = f"the secret {self._id} {why}"
        else:
            if text and text.isprintable() and text.isascii():
                self.text = text
            else:
                self._failure = f"the secret {self._id} holds no usable text: put the right value there"
        self._reads += 1
