"""Which lines of the functions' output reach their logs."""

import re
from typing import Any

import pytest

from doubles.clock import ManualClock
from tests.support.modes import Mode
from tests.support.sam import FUNCTIONS, template
from tests.support.telemetry import Output

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
LOG_LEVELS = template()["Parameters"]["LogLevel"]["AllowedValues"]
_RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")


def reaches_the_log(line: dict[str, Any], least: str) -> bool:
    """Return whether Lambda's filter passes a line; without a known level or timestamp it counts as INFO."""
    level = str(line.get("level", "INFO"))
    is_known = level in LEVELS and _RFC_3339.fullmatch(str(line.get("timestamp")))
    return LEVELS.index(level if is_known else "INFO") >= LEVELS.index(least)


@pytest.mark.parametrize("level", LOG_LEVELS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_log_level_hides_what_matters(function: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alarms depend on the metrics, and `sluice status` on warnings and errors."""
    properties = Mode({"LogLevel": level}).properties(function)
    least = properties["LoggingConfig"]["ApplicationLogLevel"]
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", least)  # Lambda sets it and Powertools reads it
    variables = properties["Environment"]["Variables"]
    output = Output(ManualClock(), POWERTOOLS_LOG_LEVEL=variables["POWERTOOLS_LOG_LEVEL"])
    output.telemetry.info("span")
    output.telemetry.warning("held")
    output.telemetry.error("unexpected exception")
    output.telemetry.count("Holds")
    output.telemetry.flush()

    assert ([] if level == "WARN" else ["INFO"]) + ["WARNING", "ERROR", "metrics"] == [
        line.get("level", "metrics") for line in output.lines() if reaches_the_log(line, least)
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_lambda_logs_failed_invocations(function: str) -> None:
    """`sluice status` and an alarm read these reports, which have the level WARN; those of other invocations have INFO."""
    mode = Mode({})
    config = mode.properties(function)["LoggingConfig"]

    expected = {"LogFormat": "JSON", "SystemLogLevel": "WARN", "LogGroup": {"Ref": "Logs"}}
    assert expected.items() <= config.items()
    assert {"RetentionInDays": mode.parameters["LogRetentionDays"]} == mode.properties("Logs")
