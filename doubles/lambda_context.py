"""The context object that Lambda passes to a handler beside the event."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The context of an invocation that times out at `deadline`, with the members that handlers and Powertools read."""

    function_name: str
    deadline: float
    now: Callable[[], float]
    memory_limit_in_mb: int = 512
    aws_request_id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:us-east-1:123456789012:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """Return the whole milliseconds until the time-out, never below zero."""
        return max(0, int((self.deadline - self.now()) * 1000))
