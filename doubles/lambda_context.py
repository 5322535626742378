"""What Lambda hands a handler beside the event."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The context object of one invocation, with the members of Lambda's own.

    Attributes:
        deadline: UNIX seconds at which the invocation times out.
        now: tells UNIX seconds.
    """

    function_name: str
    deadline: float
    now: Callable[[], float]
    memory_limit_in_mb: int = 512
    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    function_version: str = "$LATEST"
    invoked_function_arn: str = ""
    log_group_name: str = ""
    log_stream_name: str = "local"
    identity: None = None
    client_context: None = None

    def __post_init__(self) -> None:
        """Derive what the function's name implies."""
        derived = {
            "invoked_function_arn": f"arn:aws:lambda:us-east-1:123456789012:function:{self.function_name}",
            "log_group_name": f"/aws/lambda/{self.function_name}",
        }
        for name, value in derived.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    def get_remaining_time_in_millis(self) -> int:
        """Return the whole milliseconds until the time-out, never below zero."""
        return max(0, int((self.deadline - self.now()) * 1000))
