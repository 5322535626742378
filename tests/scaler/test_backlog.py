"""What the edge policy says about the overflow queue."""

from typing import Any

import pytest

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from doubles.iam import Authorized
from doubles.s3 import MemoryS3
from local.functions import SCALE, variables
from local.roles import role_of
from scaler import app
from scaler.backlog import MOST_LEVEL, MOST_MESSAGES, VALID_SECONDS, Backlog, decide
from shared import policy
from shared.policy import EdgePolicy, OverflowLimit, PolicyEntry
from shared.published_policy import PublishedPolicy
from tests.support.delivery import BUCKET, RESOURCES
from tests.support.telemetry import CollectedTelemetry

NOW = 1_764_000_000
UNTIL = (NOW + VALID_SECONDS) * 1000


@pytest.mark.parametrize(
    ("messages", "current", "expected"),
    [
        (MOST_MESSAGES, None, None),
        (MOST_MESSAGES + 1, None, 0),
        (MOST_MESSAGES + 1, OverflowLimit(NOW * 1000, 5, 1), 0),  # no longer valid
        (MOST_MESSAGES + 1, OverflowLimit(UNTIL, 0, MOST_MESSAGES + 1), 1),
        (MOST_MESSAGES + 1, OverflowLimit(UNTIL, 1, MOST_MESSAGES + 2), 1),  # shrinks
        (MOST_MESSAGES + 1, OverflowLimit(UNTIL, MOST_LEVEL, MOST_MESSAGES), MOST_LEVEL),
        (MOST_MESSAGES, OverflowLimit(UNTIL, 1, 1), 1),
        (MOST_MESSAGES // 2, OverflowLimit(UNTIL, 1, 1), 1),
        (MOST_MESSAGES // 2 - 1, OverflowLimit(UNTIL, 1, 1), None),
    ],
)
def test_the_share_is_halved_while_the_backlog_grows(
    messages: int, current: OverflowLimit | None, expected: int | None
) -> None:
    """It begins above the limit, and ends below half of it."""
    found = decide(messages, current, NOW)

    assert (None if expected is None else OverflowLimit(UNTIL, expected, messages)) == found


class Stack:
    """A queue, an edge policy, and what publishes the one in the other."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.s3 = MemoryS3(self.clock.now)
        self.s3.create_bucket(Bucket=BUCKET)
        self.messages: Any = 0
        self.telemetry = CollectedTelemetry()
        role = role_of(SCALE, RESOURCES)
        queue: Any = Authorized("sqs", self, role)
        bucket: Any = Authorized("s3", self.s3, role)
        published = PublishedPolicy(bucket, BUCKET)
        self.backlog = Backlog(queue, RESOURCES.queue_url, published, self.clock, self.telemetry)

    def get_queue_attributes(self, **asked: Any) -> dict[str, Any]:
        """Return the number of messages, all of them visible."""
        if isinstance(self.messages, Exception):
            raise self.messages
        first, *others = asked["AttributeNames"]
        return {"Attributes": {first: str(self.messages), **dict.fromkeys(others, "0")}}


def test_the_backlog_is_published_beside_the_accounts() -> None:
    """Nothing is written if there is nothing to say or to count, nor before accounts are: the policy would refuse everybody."""
    made, found = Stack(), []
    made.messages = 10 * MOST_MESSAGES
    assert (10 * MOST_MESSAGES, []) == (made.backlog.run(), list(made.s3.objects(BUCKET)))
    document = policy.encode({"shop": PolicyEntry("disabled")}, 1)
    made.s3.put_object(Bucket=BUCKET, Key=policy.KEY, Body=document)
    for made.messages in (0, MOST_MESSAGES + 1, client_error("AccessDenied", "GetQueueAttributes"), 0):
        made.backlog.run()
        found.append(EdgePolicy.parse(made.s3.get_object(Bucket=BUCKET, Key=policy.KEY)["Body"].read()))

    assert {"ScalerFailures": 1} == made.telemetry.counts
    assert [1, *[NOW * 1000] * 3] == [one.published_at for one in found]
    limit = OverflowLimit(UNTIL, 0, MOST_MESSAGES + 1)
    assert [None, limit, limit, None] == [one.overflow for one in found]
    assert [PolicyEntry("disabled")] * 4 == [one.account("shop") for one in found]


def test_a_service_that_hangs_does_not_keep_later_runs_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one each minute, four may run at once, and each ends after four minutes."""
    configs: list[Any] = []
    monkeypatch.setattr("shared.aws_clients.boto3.client", lambda _, config: configs.append(config))
    monkeypatch.setattr("os.environ", variables(SCALE, RESOURCES, {}))
    app._parts.__wrapped__()
    assert [{"mode": "standard", "total_max_attempts": 3}] * 4 == [config.retries for config in configs]
    assert all(3 * (config.connect_timeout + config.read_timeout) < 30 for config in configs)
