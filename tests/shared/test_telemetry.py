"""Logs and metrics that operators see, and data that must never be logged."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from inspect import currentframe
from threading import Barrier

import pytest

from doubles.clock import ManualClock
from doubles.lambda_context import Context
from shared.errors import LedgerUnavailableError, UnforeseenError
from shared.telemetry import ATTENTION, COUNTERS, DEPENDENCY, METRICS, QUIET_SECONDS, about
from tests.support.ingest import START
from tests.support.telemetry import Output

RFC_3339 = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}(Z|[+-]\d{2}:\d{2})"


def context(request: str) -> Context:
    """Return the context of an invocation with this request id."""
    return Context(function_name="WorkerFunction", deadline=START, now=lambda: START, aws_request_id=request)


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that the test moves."""
    return ManualClock(START)


@pytest.fixture
def output(clock: ManualClock) -> Output:
    """Return the function's captured output."""
    return Output(clock)


def test_an_invocation_writes_its_metrics_in_one_line(clock: ManualClock) -> None:
    """In CloudWatch's embedded format, with the counters. Failed requests are in a line of their own, without the dimension `version`."""
    output = Output(clock, AWS_LAMBDA_FUNCTION_VERSION="7")
    counts = {"RowsWaiting": 9, "Holds": 1, "RowsDead": 2}
    with output.telemetry.invocation(context("1")):
        for counter, value in (counts | {"RequestsFailed": 3}).items():
            output.telemetry.count(counter, value)
    with output.telemetry.invocation(context("2")):
        pass

    lines = output.lines()
    [first], [second] = [line["_aws"]["CloudWatchMetrics"] for line in lines]
    assert ("Sluice", [[]], [["version"]]) == (first["Namespace"], first["Dimensions"], second["Dimensions"])
    count = {"Unit": "Count"}
    assert [{"Name": DEPENDENCY} | count, {"Name": ATTENTION} | count] == first["Metrics"]
    assert ["RequestsFailed"] == [metric["Name"] for metric in second["Metrics"]]
    about = {"stage": "test", "service": output.service, "function_request_id": "1", "version": "7"}
    totals = [{DEPENDENCY: [10.0], ATTENTION: [2.0]}, {"RequestsFailed": [3.0]}]
    for line, total in zip(lines, totals, strict=True):
        assert (total | counts | about).items() <= line.items()


def test_metrics_of_an_invocation_that_fails_are_written(output: Output) -> None:
    """They show what the invocation did before it failed. An error of Sluice's own reaches Lambda as it is."""

    def invoke() -> None:
        with output.telemetry.invocation(context("1")):
            output.telemetry.count("Holds")
            raise LedgerUnavailableError

    with pytest.raises(LedgerUnavailableError):
        invoke()

    assert [(1, "1")] == [(line["Holds"], line["function_request_id"]) for line in output.metrics()]
    assert [] == output.log()


def _look_up(visitor: str) -> None:
    try:
        {}[visitor]
    except KeyError as error:
        raise ValueError(f"no visitor {visitor}") from error


def test_an_unforeseen_error_is_logged_by_type_and_stack(output: Output) -> None:
    """It is counted, and ends the invocation under another name: its message and its cause's may contain personal data."""

    def invoke() -> None:
        with output.telemetry.invocation(context("1")):
            _look_up("203.0.113.9")

    with pytest.raises(UnforeseenError, match=r"^ValueError: the function's log has its stack$") as raised:
        invoke()

    assert raised.value.__suppress_context__
    [line] = output.log()
    places = [frame.rpartition("/")[2] for frame in line["frames"]]
    frames = [(invoke.__code__, 2), (_look_up.__code__, 4)]
    ours = [f"test_telemetry.py:{code.co_firstlineno + lines} {code.co_name}" for code, lines in frames]
    assert ours == places[-2:]
    assert ("ERROR", "1") == (line["level"], line["function_request_id"])
    assert "ValueError" == line["exception_name"]
    assert [1] == [line["UnforeseenErrors"] for line in output.metrics()]
    assert "203.0.113.9" not in json.dumps(output.lines())


def test_a_line_says_who_wrote_it_and_when(output: Output) -> None:
    """Who is module and line, service, stage and request id; when is in RFC 3339, or Lambda would treat a warning as INFO."""
    frame = currentframe()
    assert frame is not None
    with output.telemetry.invocation(context("1a2b")):
        output.telemetry.info("span", rows=3)
        output.telemetry.warning("held", reason="http_503")
        output.telemetry.error("unexpected exception")
        output.telemetry.unforeseen("surprise", KeyError("203.0.113.9"))
        last = frame.f_lineno - 1

    lines = output.log()
    assert all(re.fullmatch(RFC_3339, line.pop("timestamp")) for line in lines)
    common = {"service": output.service, "stage": "test", "function_request_id": "1a2b"}
    own = [
        {"level": "INFO", "message": "span", "rows": 3},
        {"level": "WARNING", "message": "held", "reason": "http_503"},
        {"level": "ERROR", "message": "unexpected exception"},
        {"level": "ERROR", "message": "surprise", "exception_name": "KeyError", "frames": []},
    ]
    places = [f"test_telemetry:{number}" for number in range(last - 3, last + 1)]
    assert [line | common | {"location": place} for line, place in zip(own, places, strict=True)] == lines


def test_concurrent_invocations_are_distinguished(output: Output) -> None:
    """A local gateway serves several requests in one process, each in its own thread."""
    barrier = Barrier(2, timeout=60)

    def invoke(request_id: str) -> None:
        with output.telemetry.invocation(context(request_id)):
            barrier.wait()
            output.telemetry.info("refused", request=request_id)
            barrier.wait()

    with ThreadPoolExecutor() as threads:
        list(threads.map(invoke, ("1", "2")))

    ids = [(line["request"], line["function_request_id"]) for line in output.log()]
    assert [("1", "1"), ("2", "2")] == sorted(ids)


def test_lines_with_a_code_are_rate_limited(output: Output, clock: ManualClock) -> None:
    """Each message and code gets one line in ten seconds; the next line says how many were suppressed."""
    for _ in range(100):
        output.telemetry.info("refused", code="invalid_key", path="/pixel.gif")
        output.telemetry.info("refused", code="not_found", path="other")
        output.telemetry.warning("trouble", code="Timeout")
        output.telemetry.error("fault", code="KeyError")
    clock.time += QUIET_SECONDS
    output.telemetry.info("refused", code="invalid_key", path="/pixel.gif")

    assert [
        ("INFO", "refused", "invalid_key", 0),
        ("INFO", "refused", "not_found", 0),
        ("WARNING", "trouble", "Timeout", 0),
        ("ERROR", "fault", "KeyError", 0),
        ("INFO", "refused", "invalid_key", 99),
    ] == [(line["level"], line["message"], line["code"], line["suppressed"]) for line in output.log()]


@pytest.mark.parametrize(
    ("level", "has_info"), [("DEBUG", True), ("info", True), ("", True), ("WARN", False), ("CRITICAL", False)]
)
def test_no_level_silences_warnings_or_metrics(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, level: str, has_info: bool
) -> None:
    """The log level affects only info lines, whatever Powertools does with it."""
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", level.upper())
    output = Output(clock, POWERTOOLS_LOG_LEVEL=level)
    with output.telemetry.invocation(context("1")):
        output.telemetry.info("span")
        output.telemetry.warning("held")
        output.telemetry.error("unexpected exception")
        output.telemetry.count("Holds")

    assert [*["INFO"] * has_info, "WARNING", "ERROR"] == [line["level"] for line in output.log()]
    assert 1 == len(output.metrics())


def test_every_counter_is_explained_and_adds_to_a_metric(output: Output) -> None:
    """The docs and the alarms rely on both, and so no counter is accepted that is not on the list."""
    assert [] == [name for name, meaning in METRICS.items() if not meaning]
    assert [] == [name for name, one in COUNTERS.items() if not one.meaning or one.metric not in METRICS]
    with pytest.raises(KeyError):
        output.telemetry.count("Typo")


def test_lines_say_what_they_are_about(output: Output) -> None:
    """Whatever logs them, until the `with` ends; the innermost says it last."""
    with about(span="a", shard="s"):
        with about(span="b"):
            output.telemetry.info("one")
        output.telemetry.warning("two", shard="t")
    output.telemetry.info("three")

    subjects = [(line.get("span"), line.get("shard")) for line in output.log()]
    assert [("b", "s"), ("a", "t"), (None, None)] == subjects
