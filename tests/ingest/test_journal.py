"""What operators get to see, and what nobody must."""

import io
import json
from itertools import count
from typing import Any

import pytest
from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from ingest.journal import METRICS, QUIET_SECONDS, PowertoolsJournal
from tests.support.ingest import KEY, START, Site, http_event

_serial = count()


class Sink:
    """CloudWatch as its two streams: log lines and metric lines."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._log = io.StringIO()
        self.clock = ManualClock(START)
        # Python keeps a logger for each name, and Powertools its first stream.
        logger = Logger(service=f"test {next(_serial)}", stream=self._log, level="INFO")
        metrics = EphemeralMetrics(namespace="Sluice", service="ingest")
        metrics.set_default_dimensions(stage="test")
        self.journal = PowertoolsJournal(logger, metrics, self.clock)

    def log(self) -> list[Any]:
        """Return the log lines."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    def metrics(self) -> list[Any]:
        """Return the metric lines since the last time."""
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]


@pytest.fixture
def sink(capsys: pytest.CaptureFixture[str]) -> Sink:
    """Streams that are read back."""
    return Sink(capsys)


def test_one_line_holds_a_requests_metrics(sink: Sink) -> None:
    """In CloudWatch's embedded format, by stage and service, zeros left out."""
    sink.journal.count("EventsAccepted", 9)
    sink.journal.count("EventsRejected")
    sink.journal.flush()
    sink.journal.flush()

    [line] = sink.metrics()
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert ("Sluice", {"stage", "service"}) == (directive["Namespace"], set(directive["Dimensions"][0]))
    assert {"EventsAccepted": "Count", "EventsRejected": "Count"} == {
        metric["Name"]: metric["Unit"] for metric in directive["Metrics"]
    }
    assert ([9.0], [1.0], "test", "ingest") == (
        line["EventsAccepted"],
        line["EventsRejected"],
        line["stage"],
        line["service"],
    )


def test_counts_start_anew_with_each_request(sink: Sink) -> None:
    """And the dimensions stay; each line tells its own time."""
    for number in (1, 2):
        sink.clock.time = number
        sink.journal.count("EventsAccepted", number)
        sink.journal.flush()

    assert [([1.0], "test", 1000), ([2.0], "test", 2000)] == [
        (line["EventsAccepted"], line["stage"], line["_aws"]["Timestamp"]) for line in sink.metrics()
    ]


def test_each_line_has_the_metrics_that_were_counted(sink: Sink) -> None:
    """And no others, in whatever order they come; it is what Powertools itself would write."""
    metrics = EphemeralMetrics(namespace="Sluice", service="ingest")
    metrics.set_default_dimensions(stage="test")
    for names in (
        ("EventsAccepted", "EventsRejected"),
        ("EventsRejected",),
        ("StreamDoubts", "EventsAccepted"),
    ):
        for name in names:
            sink.journal.count(name, 3)
            metrics.add_metric(name, "Count", 3)
        sink.journal.flush()
        metrics.flush_metrics()
        mine, theirs = sink.metrics()
        mine["_aws"]["Timestamp"] = theirs["_aws"]["Timestamp"]
        assert theirs == mine


def test_metrics_can_be_turned_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By Powertools' own variable."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    sink = Sink(capsys)
    sink.journal.count("EventsAccepted")
    sink.journal.flush()

    assert [] == sink.metrics()


def test_lines_of_one_kind_are_bounded(sink: Sink) -> None:
    """One in ten seconds for each kind and code; the next one tells how many were left out."""
    for _ in range(100):
        sink.journal.note("refused", "invalid_key", path="/pixel.gif")
        sink.journal.note("refused", "not_found", path="other")
        sink.journal.warn("trouble", "Timeout")
    sink.clock.time += QUIET_SECONDS
    sink.journal.note("refused", "invalid_key", path="/pixel.gif")

    assert [
        ("INFO", "refused", "invalid_key", 0),
        ("INFO", "refused", "not_found", 0),
        ("WARNING", "trouble", "Timeout", 0),
        ("INFO", "refused", "invalid_key", 99),
    ] == [(line["level"], line["message"], line["code"], line["suppressed"]) for line in sink.log()]


def test_a_clock_that_is_set_back_silences_nothing(sink: Sink) -> None:
    """A line of the future does not stand in the way."""
    sink.journal.note("refused", "not_found")
    sink.clock.time -= 86_400
    sink.journal.note("refused", "not_found")

    assert 2 == len(sink.log())


def test_a_fault_is_told_by_its_place(sink: Sink) -> None:
    """Its type and the lines that it passed, and not its message, which may quote a visitor."""
    try:
        {}["203.0.113.9"]  # type: ignore[index]  # raises KeyError, whose message is the key
    except KeyError as error:
        sink.journal.fail("a request met a fault of the ingest", error)

    [line] = sink.log()
    assert ("ERROR", "KeyError") == (line["level"], line["code"])
    assert "test_journal.py" in line["places"][-1]
    assert "203.0.113.9" not in json.dumps(line)


def test_nothing_personal_is_written(sink: Sink) -> None:
    """No key, address, path, query, header or body, whatever goes wrong."""
    site = Site()
    handler = site.handler
    secret = "PERSONAL"
    for part in (handler, handler._intake, site.stream, site.stream._overflow, site.keyring):
        part._journal = sink.journal  # type: ignore[attr-defined]  # they all have it
    headers = {
        "user-agent": secret,
        "referer": f"https://{secret}.example",
        "authorization": f"Bearer {secret}",
        "cookie": secret,
        "x-forwarded-for": secret,
    }

    def send(method: str, path: str, query: str = "", body: bytes | None = None, **more: str) -> None:
        event = http_event(method, path, query, headers | more, body)
        event["requestContext"]["http"]["sourceIp"] = secret
        handler(event, None)
        sink.clock.time += QUIET_SECONDS

    send("GET", f"/{secret}", secret)
    send("POST", "/v1/events", "", b'{"a": "' + secret.encode())
    send("POST", "/v1/events", "", b'[{"table": "PERSONAL"}, "PERSONAL"]', authorization=f"Bearer {KEY}")
    send("GET", "/pixel.gif", f"k={KEY}&t={secret}&{secret}={secret}")
    send("GET", "/pixel.gif", f"k={secret}&t=pageviews")
    site.kinesis.faults = [
        RuntimeError(secret),
        client_error("InternalFailure", "PutRecord", secret, 500),
    ] * 2
    site.sqs.faults, site.sqs.sticky = [client_error("InternalFailure", "SendMessage", secret, 500)], True
    site.secrets.faults = [None, client_error("AccessDenied", "GetSecretValue", secret)]
    send("GET", "/pixel.gif", f"k={KEY}&t=pageviews&a={secret}")
    send("GET", "/pixel.gif", f"k={KEY}&t=pageviews&a={secret}")
    site.clock.time += 1000
    send("GET", "/pixel.gif", f"k={KEY}&t=pageviews&a={secret}")

    log, metrics = sink.log(), sink.metrics()
    assert {"refused", "a request met a fault of the ingest"} < {line["message"] for line in log}
    assert set(METRICS) > {name for line in metrics for name in line if name[0].isupper()}
    for hidden in (secret, KEY, "first secret"):
        assert hidden not in json.dumps([log, metrics])


def test_every_metric_is_explained() -> None:
    """In words, for the docs and the alarms."""
    assert [] == [name for name, meaning in METRICS.items() if not meaning]
