"""Two writers of the edge policy never undo what the other did."""

from typing import Any

import pytest

from doubles.s3 import MemoryS3
from shared import policy
from shared.errors import PolicyContestedError
from shared.policy import EdgePolicy, OverflowLimit, PolicyEntry
from shared.published_policy import PublishedPolicy

BUCKET = "aside"


class Contested(MemoryS3):
    """A bucket in which others write the policy right after it was read."""

    def __init__(self, times: int) -> None:
        super().__init__(lambda: 0.0)
        self.create_bucket(Bucket=BUCKET)
        self._others = times
        self.writes = 0

    def get_object(self, **request: Any) -> dict[str, Any]:
        """Return the policy, and then change it."""
        try:
            return super().get_object(**request)
        finally:
            if self.writes < self._others:
                self.writes += 1
                document = policy.encode({f"account_{self.writes}": PolicyEntry()}, 1)
                super().put_object(Bucket=BUCKET, Key=policy.KEY, Body=document)


def test_a_change_is_repeated_if_others_wrote_meanwhile() -> None:
    """It is made to what they wrote, also if there was no policy before."""
    s3 = Contested(3)
    found: list[EdgePolicy | None] = []

    def change(current: EdgePolicy | None) -> bytes:
        found.append(current)
        return policy.with_overflow(current or EdgePolicy(0, {}), OverflowLimit(9, 0, 1), 2)

    PublishedPolicy(s3, BUCKET).change(change)  # type: ignore[arg-type]  # a double with the client's methods

    assert [None, 1, 1, 1] == [one and one.published_at for one in found]
    last = EdgePolicy.parse(s3.get_object(Bucket=BUCKET, Key=policy.KEY)["Body"].read())
    assert (PolicyEntry(), OverflowLimit(9, 0, 1)) == (last.account("account_3"), last.overflow)


def test_a_policy_that_others_keep_writing_is_an_error() -> None:
    """The caller says so, or tries again later."""
    with pytest.raises(PolicyContestedError):
        PublishedPolicy(Contested(99), BUCKET).change(lambda _: b"x")  # type: ignore[arg-type]
