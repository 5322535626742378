"""The client against the real ingest on the loopback interface."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice_client import (
    Client,
    ClosedError,
    InvalidEventError,
    Rejection,
    SluiceHandler,
    SpoolFullError,
    command,
)
from tests.support.flaky_ingest import Fault, FlakyIngest
from tests.support.ingest import KEY

Make = Callable[..., Client]
PATIENCE = 20.0
"""Seconds that no test needs unless it fails."""


@pytest.fixture
def ingest() -> Iterator[FlakyIngest]:
    """Yield an ingest that can fail."""
    with FlakyIngest(hang_seconds=1.0) as serving:
        yield serving


@pytest.fixture
def client(ingest: FlakyIngest, tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes clients of the ingest, and close them at the end."""
    made = []

    def make(**options: Any) -> Client:
        quick = {"spool": tmp_path, "batch_seconds": 0.0, "timeout": 0.2, "retry_seconds": (0.01, 0.05)}
        made.append(Client(ingest.url, KEY, **{**quick, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close(0)


def files(path: Path) -> list[str]:
    """Return the names of the spool's files."""
    return sorted(file.name for file in path.rglob("*") if file.is_file())


def test_an_event_becomes_a_row(ingest: FlakyIngest, client: Make) -> None:
    """The row has the columns, the id and the table that were tracked."""
    event_id = client().track("orders", {"sku": "kettle"}, price=7800)
    [sent] = wait_for_rows(ingest, 1)

    assert (event_id, "kettle", 7800) == (sent["event_id"], sent["sku"], sent["price"])


def wait_for_rows(ingest: FlakyIngest, count: int) -> list[dict[str, Any]]:
    """Return the rows once there are this many."""
    deadline = time.monotonic() + PATIENCE
    while len(rows := ingest.rows()) < count and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    return rows


def test_a_with_block_delivers_everything(ingest: FlakyIngest, client: Make, tmp_path: Path) -> None:
    """At its end all events have arrived, in as few requests as possible, and no file is left."""
    with client(batch_seconds=60.0) as one:
        ids = {one.track("orders", {"n": number}) for number in range(1200)}

    assert (ids, 3, []) == (
        {row["event_id"] for row in ingest.rows()},
        len(ingest.requests),
        files(tmp_path),
    )


def test_a_batch_waits_for_more_events_for_batch_seconds(ingest: FlakyIngest, client: Make) -> None:
    """Events that are tracked together are sent together, without a flush."""
    one = client(batch_seconds=0.2)
    for number in range(10):
        one.track("orders", {"n": number})

    assert (10, 1) == (len(wait_for_rows(ingest, 10)), len(ingest.requests))


@pytest.mark.parametrize("fault", ["unavailable", "hanging", "deaf", "reset", "page"])
def test_every_event_is_one_row_after_a_failure(ingest: FlakyIngest, client: Make, fault: Fault) -> None:
    """Whatever happens to requests and responses, the batch is retried until it is accepted, and counts once."""
    ingest.fault, ingest.retry_after = fault, "0"
    one = client()
    ids = [one.track("orders", {"n": number}) for number in range(20)]
    before = one.flush(0.5)
    ingest.fault = "none"
    after = one.flush(PATIENCE)

    assert (False, True, sorted(ids), 20) == (
        before,
        after,
        sorted(row["event_id"] for row in ingest.rows()),
        one.statistics().accepted,
    )


def test_a_request_inflates_to_less_than_1_mib(ingest: FlakyIngest, client: Make) -> None:
    """However large and compressible the events are, Sluice reads every request: it inflates 2 MiB."""
    one = client(batch_seconds=60.0, timeout=PATIENCE)
    for size in [2500] * 1000 + [250_000] * 9:
        one.track("orders", text="x" * size)
    one.flush(PATIENCE)
    sizes = [len(zlib.decompress(request.body, 31)) for request in ingest.requests]

    assert (1009, True, True) == (len(ingest.rows()), max(sizes) < 1024 * 1024, max(sizes) > 800 * 1024)


def test_retry_after_is_respected(ingest: FlakyIngest, client: Make) -> None:
    """No attempt is made before the time in a 503, even by a flush."""
    ingest.fault, ingest.retry_after = "unavailable", "3600"
    one = client()
    one.track("orders")
    one.flush(0.5)

    assert (1, "stream_unavailable") == (len(ingest.requests), one.statistics().last_error)


def test_rejected_events_are_reported_and_harm_no_others(
    ingest: FlakyIngest, client: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A rejected event is logged and passed to the callback; the events beside it become rows."""
    rejected: list[Rejection] = []
    one = client(on_rejected=rejected.append, batch_seconds=60.0)
    one.track("orders", n=1)
    bad = one.track("orders", {f"c{number}": 0 for number in range(600)})
    one.track("orders", n=2)
    delivered = one.flush(PATIENCE)
    counts = one.statistics()

    assert (True, [(bad, "too_many_columns")], [1, 2], (2, 1, 0)) == (
        delivered,
        [(item.event["event_id"], item.code) for item in rejected],
        [row["n"] for row in ingest.rows()],
        (counts.accepted, counts.rejected, counts.pending),
    )
    assert "too_many_columns" in caplog.text


def test_a_failing_callback_does_not_stop_the_sender(ingest: FlakyIngest, client: Make) -> None:
    """The sender survives any exception of the caller's function."""

    def fail(_: Rejection) -> None:
        raise RuntimeError("a test's")

    one = client(on_rejected=fail, batch_seconds=60.0)
    one.track("orders", {f"c{number}": 0 for number in range(600)})
    one.flush(PATIENCE)
    one.track("orders")

    assert (True, 1) == (one.flush(PATIENCE), len(ingest.rows()))


def test_a_wrong_key_keeps_the_events(ingest: FlakyIngest, client: Make, tmp_path: Path) -> None:
    """The events of a client with a wrong key arrive once the key is right."""
    wrong = Client(
        ingest.url,
        f"{KEY[:-1]}!"[:-1] + ("A" if KEY[-1] != "A" else "B"),
        spool=tmp_path,
        retry_seconds=(0.01, 0.05),
    )
    wrong.track("orders", n=1)
    kept = not wrong.close(0.5)
    right = client()
    right.resume()

    assert (True, "invalid_key", [1]) == (
        kept,
        wrong.statistics().last_error,
        [row["n"] for row in wait_for_rows(ingest, 1)],
    )


def test_a_full_spool_raises(ingest: FlakyIngest, client: Make) -> None:
    """The exception names the limit, and the events that were stored before are delivered."""
    ingest.fault, ingest.retry_after = "unavailable", "0"
    one = client(spool_bytes=450)
    stored = [one.track("orders", time=1_764_000_000) for _ in range(5)]
    with pytest.raises(SpoolFullError, match="may hold 450"):
        one.track("orders", time=1_764_000_000)
    ingest.fault = "none"

    assert (True, len(stored)) == (one.flush(PATIENCE), len(ingest.rows()))


def test_a_closed_client_accepts_no_events(client: Make) -> None:
    """Tracking after `close` raises ClosedError."""
    one = client()
    one.close()

    with pytest.raises(ClosedError):
        one.track("orders")


@pytest.mark.parametrize(
    "options",
    [{"endpoint": "collect.example.com"}, {"key": "nonsense"}, {"batch_events": 501}, {"batch_bytes": 0}],
)
def test_invalid_arguments_raise_at_once(options: dict[str, Any], tmp_path: Path) -> None:
    """A mistake in the configuration raises when the client is created."""
    with pytest.raises(ValueError, match=r"URL|write key|batch"):
        Client(**{"endpoint": "https://collect.example.com", "key": KEY, "spool": tmp_path, **options})


def test_threads_share_a_client(ingest: FlakyIngest, client: Make) -> None:
    """Eight threads that track at the same time lose nothing, and each event is one row."""
    one = client(batch_seconds=0.01)
    ids: list[str] = []

    def work() -> None:
        ids.extend([one.track("orders") for _ in range(200)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (True, sorted(ids)) == (one.flush(PATIENCE), sorted(str(row["event_id"]) for row in ingest.rows()))


def test_a_signal_handler_may_track(ingest: FlakyIngest, client: Make) -> None:
    """A handler that interrupts `track` in the same thread does not deadlock, and nothing is lost."""
    one = client()
    ids = [one.track("orders")]
    before = signal.signal(signal.SIGALRM, lambda *_: ids.append(one.track("orders")))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        ids += [one.track("orders") for _ in range(2000)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert (True, sorted(ids)) == (one.flush(PATIENCE), sorted(str(row["event_id"]) for row in ingest.rows()))


def run(script: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script that uses `Client` in its own interpreter."""
    root = Path(__file__).parents[2] / "client"
    program = f"import os, sys\nfrom sluice_client import Client\n{script}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        input=stdin, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


def test_forked_processes_each_deliver(ingest: FlakyIngest, tmp_path: Path) -> None:
    """A client that is used before a fork, as with gunicorn's preload, works in the parent and the children."""
    done = run(
        """
client = Client(sys.argv[1], sys.argv[2], spool=sys.argv[3])
client.track("orders", n=0)
children = []
for number in (1, 2, 3):
    child = os.fork()
    if not child:
        for _ in range(100):
            client.track("orders", n=number)
        os._exit(0 if client.flush() else 1)
    children.append(child)
    client.track("orders", n=0)
codes = [os.waitpid(child, 0)[1] for child in children]
sys.exit(any(codes) or not client.close())
""",
        ingest.url, KEY, str(tmp_path),
    )  # fmt: skip
    counts = [[row["n"] for row in ingest.rows()].count(number) for number in range(4)]

    assert (0, "", [4, 100, 100, 100]) == (done.returncode, done.stderr, counts)


def test_a_parent_sends_the_events_of_a_killed_child(ingest: FlakyIngest, tmp_path: Path) -> None:
    """The child may be killed like a pool's worker, without a chance to flush."""
    done = run(
        """
client = Client(sys.argv[1], sys.argv[2], spool=sys.argv[3], batch_seconds=0)
child = os.fork()
if not child:
    for _ in range(10):
        client.track("orders", n=1)
    os.kill(os.getpid(), 9)
os.waitpid(child, 0)
client.resume()
sys.exit(not client.close())
""",
        ingest.url, KEY, str(tmp_path),
    )  # fmt: skip

    assert (0, "", 10) == (done.returncode, done.stderr, len(ingest.rows()))


def test_a_program_flushes_when_it_ends(ingest: FlakyIngest, tmp_path: Path) -> None:
    """A script that tracks an event and ends has delivered it without calling `close`."""
    run(
        "Client(sys.argv[1], sys.argv[2], spool=sys.argv[3]).track('orders')",
        ingest.url, KEY, str(tmp_path),
    )  # fmt: skip

    assert (1, []) == (len(ingest.rows()), files(tmp_path))


def test_log_records_become_rows(ingest: FlakyIngest, client: Make) -> None:
    """The handler stores a record with its logger and its exception, but none of the client's own records."""
    one = client(batch_seconds=60.0)
    logger = logging.getLogger("shop.orders")
    logger.addHandler(shop := SluiceHandler(one))
    own = logging.getLogger("sluice_client.test")
    own.addHandler(handler := SluiceHandler(one))
    try:
        dict[str, int]()["kettle"]
    except KeyError:
        logger.exception("order %d failed", 4711)
    own.error("not this one")
    own.removeHandler(handler)
    logger.removeHandler(shop)
    one.flush(PATIENCE)
    [row] = ingest.rows()

    assert ("shop.orders", "ERROR", "order 4711 failed", True) == (
        row["logger"],
        row["level"],
        row["message"],
        str(row["exception"]).endswith("KeyError: 'kettle'"),
    )


def test_the_clients_own_records_do_not_wait_for_the_handler(client: Make) -> None:
    """It may be waiting for the client, which logs: while it starts, it says which spool files are corrupt."""
    handler = SluiceHandler(client())
    own = logging.makeLogRecord({"name": "sluice_client.test"})
    handler.acquire()
    thread = threading.Thread(target=handler.handle, args=(own,), daemon=True)
    thread.start()
    thread.join(2)
    is_waiting = thread.is_alive()
    handler.release()

    assert not is_waiting


Send = Callable[..., int]


@pytest.fixture
def send(ingest: FlakyIngest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Return a function that runs the command with these lines as its input, and returns its exit code."""
    options = ["--endpoint", ingest.url, "--key", KEY, "--spool", str(tmp_path), "--timeout", "1"]

    def run(lines: bytes, *arguments: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        return command.main([*options, *arguments])

    return run


def test_the_command_sends_lines(ingest: FlakyIngest, send: Send) -> None:
    """Each line is an event, for its own table or the option's; the exit code is 0 if all are accepted."""
    code = send(b'{"n": 1}\n\n{"n": 2, "table": "visits"}\n', "--table", "orders")

    assert (0, [("orders", 1), ("visits", 2)]) == (
        code,
        [(table, row["n"]) for table, row in ingest.site.rows()],
    )


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[1]",
        b'{"table": "No"}',
        b"{}",
        b"\xff",
        pytest.param(b"[" * 100_000, id="nested deeply"),
    ],
)
def test_the_command_fails_if_a_line_is_not_an_event(
    ingest: FlakyIngest, send: Send, capsys: pytest.CaptureFixture[str], line: bytes
) -> None:
    """The message names the line, the exit code is 1, and the other lines are sent."""
    code = send(b'{"table": "orders"}\n%b\n{"table": "orders"}\n' % line)

    assert (1, 2, True) == (code, len(ingest.rows()), "line 2: " in capsys.readouterr().err)


def test_the_command_fails_if_an_event_is_rejected(send: Send) -> None:
    """An event that the ingest rejects makes the exit code 1."""
    line = json.dumps({"table": "orders", **{f"c{number}": 0 for number in range(600)}}).encode()

    assert 1 == send(line)


def test_the_command_keeps_events_while_the_endpoint_is_down(ingest: FlakyIngest, send: Send) -> None:
    """The exit code is 75, and the next run sends the events."""
    ingest.fault = "unavailable"
    first = send(b'{"table": "orders"}\n')
    ingest.fault = "none"

    assert (75, 0, 1) == (first, send(b""), len(ingest.rows()))


def test_the_command_sends_what_several_killed_programs_have_left(
    ingest: FlakyIngest, tmp_path: Path, send: Send
) -> None:
    """The exit code 0 covers all of it."""
    run(
        """
client = Client(sys.argv[1], sys.argv[2], spool=sys.argv[3], batch_seconds=60)
(stored, ready), (end, ending) = os.pipe(), os.pipe()
for _ in range(16):
    if not os.fork():
        client.track("orders")
        os.write(ready, b".")
        os.close(ending)
        os.read(end, 1)
        os._exit(0)
count = 0
while count < 16:
    count += len(os.read(stored, 16))
os.close(ending)
for _ in range(16):
    os.wait()
""",
        ingest.url, KEY, str(tmp_path),
    )  # fmt: skip

    assert (0, 16, []) == (send(b""), len(ingest.rows()), files(tmp_path))


def test_an_invalid_event_is_not_stored(client: Make) -> None:
    """An event that can never be accepted raises in the caller, and nothing is pending."""
    one = client()
    with pytest.raises(InvalidEventError):
        one.track("Orders!")

    assert 0 == one.statistics().pending
