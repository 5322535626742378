"""The time of a line of the functions' logs, and the log group that has them."""

from typing import TYPE_CHECKING

from ops.moment import moment

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def seconds_of(text: str) -> float:
    """Return a log line's time in UNIX seconds; 0 if it has none."""
    try:
        return moment(text.replace(",", "."), 0.0)
    except ValueError:
        return 0.0


def group_of(functions: "LambdaClient", function: str) -> str:
    """Return the log group of a function."""
    return functions.get_function_configuration(FunctionName=function)["LoggingConfig"]["LogGroup"]
