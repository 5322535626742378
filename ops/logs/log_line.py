"""The time of a line of the functions' logs, and the log group that has them."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def seconds_of(text: str) -> float:
    """Return a log line's time in UNIX seconds; 0 if it has none."""
    try:
        found = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def group_of(functions: "LambdaClient", function: str) -> str:
    """Return the log group of a function."""
    return functions.get_function_configuration(FunctionName=function)["LoggingConfig"]["LogGroup"]
