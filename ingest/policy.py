"""Reads the edge policy from S3 and refuses what it says to refuse.

The policy is read when a function instance starts and again when it is older than a minute, in the background: a request waits for at
most a tenth of a second, and no failure reaches it. What was read once is used until something newer is read. Refusals need
more: a policy that S3 has confirmed within five minutes. Without one, every valid key is served, and the worker decides.
"""

from collections.abc import Callable, Mapping
from threading import Thread
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from ingest.refusal import Refused
from shared import policy
from shared.clock import Clock
from shared.errors import InvalidPolicyError, error_code
from shared.policy import EdgePolicy, PolicyEntry
from shared.telemetry import Telemetry
from shared.write_key import WriteKey

if TYPE_CHECKING:
    from ingest.aws_client import S3Client

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": 1, "read_timeout": 5}
"""Client options. Nobody waits for the client; these bound how long a thread lasts."""
WAIT_SECONDS = 0.1
"""How long a request waits for the policy."""
FRESH_SECONDS = 60
"""How long a policy is used before it is read again."""
PAUSE_SECONDS = 10
"""The same after a failure."""
REFUSING_SECONDS = 300
"""How long ago S3 may have confirmed a policy that refuses anything."""
LOOK_AGAIN_SECONDS = 1
"""Minimum time between reads for the sake of accounts that the policy does not name."""

_ABSENT = ("NoSuchKey", "AccessDenied")  # who may not list a bucket is not told that an object is absent
_UNCHANGED = "304"
_UNNAMED = PolicyEntry()

Start = Callable[[Callable[[], None]], Callable[[float], None]]
"""Starts a job and returns what waits for its end, at most that many seconds."""


def in_background(job: Callable[[], None]) -> Callable[[float], None]:
    """Start a job in a thread."""
    thread = Thread(target=job, daemon=True)
    thread.start()
    return thread.join


class PolicyReader:
    """Knows the edge policy.

    Args:
        client: a boto3-like S3 client.
        bucket: where the policy is.
        clock: measures its age.
        telemetry: logs failures.
        start: starts a read.
    """

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        clock: Clock,
        telemetry: Telemetry,
        start: Start = in_background,
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
        self._unknown: set[str] = set()  # accounts that this policy was read again for

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
            return self._looked_for_again(key.account)
        raise Refused("disabled_account" if found.status == "disabled" else "revoked_key")

    def begin(self) -> Callable[[float], None]:
        """Start to read the policy; return what waits for it."""
        if self._is_reading:
            return lambda _seconds: None
        self._is_reading = True
        self._tried_at, self._pause = self._clock.now(), PAUSE_SECONDS
        return self._start(self._read)

    def _looked_for_again(self, account: str) -> PolicyEntry:
        """Refuse an account that is in no policy, not even one that is read now: it may have been created since."""
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
        """Read the policy, if it has changed."""
        began = self._clock.now()
        try:
            condition = {"IfNoneMatch": self._etag} if self._etag else {}
            answer = self._client.get_object(Bucket=self._bucket, Key=policy.KEY, **condition)
            self._use(answer["Body"].read())
            self._etag = answer.get("ETag", "")
        except (BotoCoreError, ClientError, InvalidPolicyError) as error:
            code = error_code(error)
            if code in _ABSENT:
                self._pause = FRESH_SECONDS
            if code != _UNCHANGED:
                if code not in _ABSENT:
                    self._telemetry.warning("the edge policy cannot be read", code=code, reason=str(error))
                return
        finally:
            self._is_reading = False
        self._confirmed_at, self._pause = began, FRESH_SECONDS

    def _use(self, document: bytes) -> None:
        found = EdgePolicy.parse(document)
        if self._policy is not None and found.published_at < self._policy.published_at:
            raise InvalidPolicyError("it is older than the one before")
        self._policy, self._unknown = found, set()

    def _is_within(self, since: float, seconds: float) -> bool:
        return 0 <= self._clock.now() - since < seconds  # clocks can be set back
