"""Reads the edge policy from S3 and refuses what it says to refuse.

A thread reads the policy when a function instance starts, and again when it is more than a minute old. A request waits for it at most
a tenth of a second, and a failed read does not affect the request. Plans and limits stay in use until a newer policy is read. Only a
policy that S3 has confirmed within the last five minutes refuses anything: without one, every valid key is accepted, and the worker
decides.
"""

from collections.abc import Callable, Mapping
from contextvars import copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any

from ingest.refusal import Refused
from shared import policy
from shared.clock import Clock
from shared.errors import InvalidPolicyError, aws_errors, error_code
from shared.policy import EdgePolicy, PolicyEntry
from shared.telemetry import Telemetry
from shared.write_key import WriteKey

if TYPE_CHECKING:
    from ingest.aws_client import S3Client

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 1, "read_timeout": 5}
"""Client options. No request waits for the client; these bound how long a thread runs."""
WAIT_SECONDS = 0.1
"""How long a request waits for the policy."""
FRESH_SECONDS = 60
"""How long a policy is used before it is read again."""
PAUSE_SECONDS = 10
"""The same after a failure."""
REFUSING_SECONDS = 300
"""How long after S3 has confirmed a policy it may refuse anything."""
LOOK_AGAIN_SECONDS = 1
"""Minimum time between extra reads for accounts that the policy does not name."""

_UNCHANGED = "304"
_UNNAMED = PolicyEntry()

Start = Callable[[Callable[[], None]], Callable[[float], None]]
"""Starts a job and returns a function that waits for it, at most for the seconds that it is called with."""


def in_background(job: Callable[[], None]) -> Callable[[float], None]:
    """Start a job in a thread. Its log lines have the id of this request."""
    thread = Thread(target=copy_context().run, args=(job,), daemon=True)
    thread.start()
    return thread.join


class PolicyReader:
    """Reads the edge policy and applies it.

    Args:
        client: a boto3-like S3 client.
        bucket: where the policy is.
        clock: measures its age.
        telemetry: logs failures.
        start: starts a read.
    """

    def __init__(
        self, client: "S3Client", bucket: str, clock: Clock, telemetry: Telemetry, start: Start
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._clock = clock
        self._telemetry = telemetry
        self._start = start
        self._policy: EdgePolicy | None = None
        self._etag = ""
        self._confirmed_at = float("-inf")  # when the last successful read began
        self._tried_at = float("-inf")
        self._pause: float = PAUSE_SECONDS
        self._is_reading = False
        self._unknown: set[str] = set()  # accounts that an extra read of this policy did not find either

    def entry(self, key: WriteKey) -> PolicyEntry:
        """Return what the policy says about the account of a verified key.

        Raises:
            Refused: `unknown_account`, `disabled_account`, `revoked_key`.
        """
        if not self._is_within(self._tried_at, self._pause):
            self.begin()(WAIT_SECONDS)
        found = self._policy.account(key.account) if self._policy is not None else None
        if found is not None and found.status == "active" and key.key_id not in found.revoked_key_ids:
            return found
        if self._policy is None or not self._is_within(self._confirmed_at, REFUSING_SECONDS):
            return found or _UNNAMED
        if found is None:
            return self._look_again(key.account)
        raise Refused("disabled_account" if found.status == "disabled" else "revoked_key")

    def overflow_level(self) -> int | None:
        """Return how often an account's share is halved because the overflow queue holds too much; None if it does not."""
        overflow = self._policy.overflow if self._policy is not None else None
        if overflow is None or overflow.until <= self._clock.now() * 1000:
            return None
        return overflow.level

    def begin(self) -> Callable[[float], None]:
        """Start to read the policy; return a function that waits for the read."""
        if self._is_reading:
            return lambda _seconds: None
        self._is_reading = True
        self._tried_at, self._pause = self._clock.now(), PAUSE_SECONDS
        return self._start(self._read)

    def _look_again(self, account: str) -> PolicyEntry:
        """Read the policy again for an account that it does not name, which may be new; refuse it if it is still missing."""
        if account not in self._unknown:
            asked_at = self._clock.now()
            if not self._is_within(self._tried_at, LOOK_AGAIN_SECONDS):
                self.begin()(WAIT_SECONDS)
            found = self._policy.account(account) if self._policy is not None else None
            if found is not None or self._confirmed_at < asked_at:
                return found or _UNNAMED
            self._unknown.add(account)
        raise Refused("unknown_account")

    def _read(self) -> None:
        """Read the policy if it has changed."""
        began = self._clock.now()
        try:
            condition = {"IfNoneMatch": self._etag} if self._etag else {}
            answer = self._client.get_object(Bucket=self._bucket, Key=policy.KEY, **condition)
            self._use(answer["Body"].read())
            self._etag = answer.get("ETag", "")
        except aws_errors(InvalidPolicyError) as error:
            code = error_code(error)
            if code in policy.ABSENT:
                self._pause = FRESH_SECONDS
            if code != _UNCHANGED:
                if code not in policy.ABSENT:
                    self._telemetry.warning("the edge policy cannot be read", code=code, reason=str(error))
                return
        finally:
            self._is_reading = False
        self._confirmed_at, self._pause = began, FRESH_SECONDS

    def _use(self, document: bytes) -> None:
        found = EdgePolicy.parse(document)
        if self._policy is not None and found.published_at < self._policy.published_at:
            raise InvalidPolicyError("it is older than the one in use")
        self._policy, self._unknown = found, set()

    def _is_within(self, since: float, seconds: float) -> bool:
        return 0 <= self._clock.now() - since < seconds  # clocks can be set back
