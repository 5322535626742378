"""How many messages an SQS queue holds."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


def queue_counts(sqs: "SQSClient", url: str) -> tuple[int, int]:
    """Return how many messages of a queue SQS shows at present, and how many it hides, about."""
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))
    shown, *hidden = (int(answer["Attributes"][name]) for name in _COUNTS)
    return shown, sum(hidden)
