"""The client against the real ingest on the loopback interface."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest

from sluice_client import (
    Client,
    ClosedError,
    InvalidEventError,
    Rejection,
    SluiceHandler,
    SpoolError,
    SpoolFullError,
    command,
)
from sluice_client.client import _Running as Running
from sluice_client.client import spool_folder
from sluice_client.event import encode
from sluice_client.sender import Sender
from sluice_client.spool_directory import SpoolDirectory
from sluice_client.spool_file import Limits, SpoolFile
from tests.support.flaky_ingest import Fault, FlakyIngest
from tests.support.ingest import KEY

Make = Callable[..., Client]
Program = Callable[..., subprocess.Popen[str]]
Send = Callable[..., int]
PATIENCE = 60.0
"""Seconds that no test needs unless it fails."""
REJECTED = {"event_id": "e" * 129, **{f"c{number}": 0 for number in range(509)}}
"""Columns of an event that only Sluice rejects: an id that is too long becomes a column, the 513th."""


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


def test_a_with_block_delivers_everything(ingest: FlakyIngest, client: Make, tmp_path: Path) -> None:
    """At its end all events are rows with their ids and columns, in few requests (three would do), and no file is left."""
    with client(batch_seconds=60.0, timeout=PATIENCE) as one:
        tracked = {(one.track("orders", {"n": number}, price=7800), number, 7800) for number in range(1200)}

    assert tracked == {(row["event_id"], row["n"], row["price"]) for row in ingest.rows()}
    assert 3 <= len(ingest.requests) <= 6
    assert [] == files(tmp_path)


def test_a_batch_waits_for_more_events_for_batch_seconds(ingest: FlakyIngest, client: Make) -> None:
    """Events that are tracked together are sent together, without a flush."""
    sent = threading.Event()
    ingest.on_request = sent.set
    one = client(batch_seconds=0.2, timeout=PATIENCE)
    began = time.monotonic()
    for number in range(10):
        one.track("orders", {"n": number})
    is_together = time.monotonic() - began < 0.2

    assert sent.wait(PATIENCE)
    assert one.close(PATIENCE)
    assert (10, True) == (len(ingest.rows()), len(ingest.requests) == 1 or not is_together)


@pytest.mark.parametrize("fault", ["unavailable", "hanging", "deaf", "reset", "page"])
def test_every_event_is_one_row_after_a_failure(ingest: FlakyIngest, client: Make, fault: Fault) -> None:
    """Whatever happens to requests and responses, the batch is retried until it is accepted, and counts once."""
    ingest.fault, ingest.retry_after = fault, "0"
    one = client(timeout=0.2 if fault in ("hanging", "deaf") else PATIENCE)
    ids = [one.track("orders", {"n": number}) for number in range(20)]
    deadline = time.monotonic() + PATIENCE
    while not one.statistics().last_error and time.monotonic() < deadline:
        assert not one.flush(0.1)
    failed = one.statistics()
    ingest.fault = "none"

    assert one.flush(PATIENCE)
    assert sorted(ids) == sorted(row["event_id"] for row in ingest.rows())
    assert (20, "") == (one.statistics().accepted, one.statistics().last_error)
    assert (fault == "unavailable") == (failed.last_error == "stream_unavailable")


def test_a_request_inflates_to_less_than_1_mib(ingest: FlakyIngest, client: Make) -> None:
    """However large and compressible the events are, Sluice reads every request: it inflates 2 MiB."""
    one = client(batch_seconds=60.0, timeout=PATIENCE)
    for size in [2500] * 1000 + [250_000] * 9:
        one.track("orders", text="x" * size)
    one.flush(PATIENCE)
    sizes = [len(zlib.decompress(request.body, 31)) for request in ingest.requests]

    assert (1009, True, True) == (len(ingest.rows()), max(sizes) < 1024 * 1024, max(sizes) > 800 * 1024)


def test_events_of_many_tables_are_all_accepted(ingest: FlakyIngest, client: Make) -> None:
    """Sluice takes 20 tables in a request. Events of more go in several requests, with as many as they may have."""
    one = client(batch_seconds=60.0)
    ids = [one.track(f"table_{number % 45}", n=number) for number in range(90)]
    ids += [one.track(f"table_{number % 20}", n=number) for number in range(90, 500)]
    assert one.flush(PATIENCE)

    assert sorted(ids) == sorted(row["event_id"] for row in ingest.rows())
    assert len(ingest.requests) <= 10


def test_rejected_events_are_reported_and_harm_no_others(
    ingest: FlakyIngest, client: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A rejected event is logged and passed to the callback; the events beside it become rows, even if the callback fails."""
    rejected: list[Rejection] = []

    def fail(rejection: Rejection) -> None:
        rejected.append(rejection)
        raise RuntimeError("a test's")

    one = client(on_rejected=fail, batch_seconds=60.0)
    one.track("orders", n=1)
    bad = one.track("orders", REJECTED)
    one.track("orders", n=2)
    assert one.flush(PATIENCE)
    one.track("orders", n=3)
    assert one.flush(PATIENCE)
    counts = one.statistics()

    assert [(bad, "too_many_columns")] == [(item.event["event_id"], item.code) for item in rejected]
    assert [1, 2, 3] == [row["n"] for row in ingest.rows()]
    assert (3, 1, 0) == (counts.accepted, counts.rejected, counts.pending)
    assert "too_many_columns" in caplog.text


def test_an_event_that_is_not_stored_raises(ingest: FlakyIngest, client: Make) -> None:
    """It can never be accepted, the spool is full, or the client is closed; the events that were stored before are delivered."""
    ingest.fault, ingest.retry_after = "unavailable", "0"
    one = client(spool_bytes=450)
    for _ in range(5):
        one.track("orders", time=1_764_000_000)
    with pytest.raises(InvalidEventError):
        one.track("Orders!")
    with pytest.raises(SpoolFullError, match="may hold 450"):
        one.track("orders", time=1_764_000_000)
    assert 5 == one.statistics().pending
    ingest.fault = "none"
    assert one.close(PATIENCE)
    with pytest.raises(ClosedError):
        one.track("orders")
    assert 5 == len(ingest.rows())


def test_a_client_without_threads_holds_nothing(ingest: FlakyIngest, client: Make, tmp_path: Path) -> None:
    """The event is not stored, and what earlier processes have left is still there for the next attempt, or for another process."""
    ingest.fault, ingest.retry_after = "unavailable", "0"
    earlier = client()
    earlier.track("orders", n=1)
    earlier.close(0)
    ingest.fault = "none"
    one = client()
    usual = threading.stack_size(1 << 46)
    try:
        with pytest.raises(SpoolError, match="cannot start a thread"):
            one.track("orders", n=2)
    finally:
        threading.stack_size(usual)
    one.track("orders", n=3)

    assert one.close(PATIENCE)
    assert ([1, 3], []) == (sorted(row["n"] for row in ingest.rows()), files(tmp_path))


@pytest.mark.parametrize("variable", ["SLUICE_SPOOL", "XDG_STATE_HOME"])
def test_a_change_of_the_working_directory_does_not_move_the_spool(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Daemons change to `/` once they have started, and fork, after which the spool is opened again."""
    monkeypatch.delenv("SLUICE_SPOOL", raising=False)
    monkeypatch.setenv(variable, "state")
    monkeypatch.chdir(tmp_path)

    folder = spool_folder(None)

    assert tmp_path / "state" in (folder, folder.parent)


@pytest.mark.parametrize(
    "options",
    [{"endpoint": "collect.example.com"}, {"key": "nonsense"}, {"batch_events": 501}, {"batch_bytes": 0}],
)
def test_invalid_arguments_raise_at_once(options: dict[str, Any], tmp_path: Path) -> None:
    """A mistake in the configuration raises when the client is created."""
    with pytest.raises(ValueError, match=r"URL|write key|batch"):
        Client(**{"endpoint": "https://collect.example.com", "key": KEY, "spool": tmp_path, **options})


def test_threads_and_signal_handlers_share_a_client(ingest: FlakyIngest, client: Make) -> None:
    """Eight threads that track at the same time lose nothing, and neither does a handler that interrupts `track` in one of them."""
    one = client(batch_seconds=0.01)
    ids = [one.track("orders")]

    def work(count: int = 200) -> None:
        ids.extend([one.track("orders") for _ in range(count)])

    threads = [threading.Thread(target=work) for _ in range(7)]
    for thread in threads:
        thread.start()
    before = signal.signal(signal.SIGALRM, lambda *_: ids.append(one.track("orders")))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        work(2000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for thread in threads:
        thread.join()

    assert one.flush(PATIENCE)
    assert sorted(ids) == sorted(str(row["event_id"]) for row in ingest.rows())


def test_a_signal_handler_may_interrupt_track_anywhere() -> None:
    """Nothing that `track` does after an event is stored holds a lock that the handler's own `track` then waits for."""
    instructions = count(1)
    while (appended := appended_with_interruption(next(instructions))) == 2:
        pass

    assert (1, True) == (appended, next(instructions) > 20)


def appended_with_interruption(at: int) -> int:
    """Store an event, and another one when as many instructions are executed, if there are as many; return how many were stored."""
    stored: list[bytes] = []
    spool = SimpleNamespace(append=stored.append, sync=bool)
    sender = SimpleNamespace(run=bool, stop=bool)
    running = Running(cast("SpoolFile", spool), cast("Sender", sender))

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal at
        frame.f_trace_opcodes = True
        at -= 1
        if at == 0:
            running.append(b"of the handler")
        return trace

    def append() -> None:
        sys.settrace(trace)
        running.append(b"interrupted")
        sys.settrace(None)

    thread = threading.Thread(target=append, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    running.stop(0)
    return len(stored)


@pytest.fixture
def program(ingest: FlakyIngest, tmp_path: Path) -> Program:
    """Return a function that starts a script, in which `start` makes a client, in its own interpreter."""
    start = f"Client({ingest.url!r}, {KEY!r}, spool={str(tmp_path / 'spool')!r}, **options)"
    head = f"import os, sys\nfrom sluice_client import Client\ndef start(**options): return {start}\n"

    def run(script: str, *around: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*around, sys.executable, "-W", "ignore", "-c", head + script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "client")},
        )  # fmt: skip

    return run


def test_forked_processes_each_deliver(ingest: FlakyIngest, program: Program) -> None:
    """A client that is used before a fork, as with gunicorn's preload, works in the parent and the children."""
    done = program("""
client = start()
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
""")

    assert ("", "") == done.communicate(timeout=60)
    assert 0 == done.returncode
    assert {0: 4, 1: 100, 2: 100, 3: 100} == Counter(row["n"] for row in ingest.rows())


def test_a_program_flushes_when_it_ends(ingest: FlakyIngest, program: Program, tmp_path: Path) -> None:
    """A script that tracks an event and ends has delivered it without calling `close`."""
    program("start().track('orders')").communicate(timeout=60)

    assert (1, []) == (len(ingest.rows()), files(tmp_path))


_FILL = """
import json
from sluice_client import SpoolError
client = start(batch_events=20, batch_seconds=60, timeout=1, retry_seconds=(0.01, 0.05))
def fill():
    ids = []
    try:
        while True:
            ids.append(client.track("orders", text="x" * size))
    except SpoolError:
        return ids
print(json.dumps(fill()), flush=True)
sys.stdin.readline()
print(json.dumps([client.flush(60), client.statistics().pending, len(fill()) > 0]), flush=True)
os.kill(os.getpid(), 9)
"""
_SMALL_DISK = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


@pytest.mark.parametrize("size", [20, 2000, 100_000])
def test_a_full_disk_stops_nothing(ingest: FlakyIngest, program: Program, tmp_path: Path, size: int) -> None:
    """Once the endpoint is back, every stored event is delivered once; then there is space for others."""
    mounting = [*_SMALL_DISK, "mount -t tmpfs tmpfs /mnt"]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    (tmp_path / "spool").mkdir()
    ingest.fault, ingest.retry_after = "unavailable", "0"
    mount = f'mount -t tmpfs -o size=1m tmpfs {tmp_path / "spool"} && exec "$@"'
    filling = program(f"size = {size}{_FILL}", *_SMALL_DISK, mount, "sh")
    stored = json.loads(filling.stdout.readline())
    ingest.fault = "none"
    outcome, _ = filling.communicate("\n", timeout=120)
    rows = Counter(str(row["event_id"]) for row in ingest.rows())

    assert [True, 0, True] == json.loads(outcome)
    assert set(stored) <= set(rows)
    assert {1} == set(rows.values())


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

    assert ("shop.orders", "ERROR", "order 4711 failed") == (row["logger"], row["level"], row["message"])
    assert str(row["exception"]).endswith("KeyError: 'kettle'")


def test_the_clients_own_records_do_not_wait_for_the_handler(client: Make) -> None:
    """It may be waiting for the client, which logs: while it starts, it says which spool files are corrupt."""
    handler = SluiceHandler(client())
    own = logging.makeLogRecord({"name": "sluice_client.test"})
    handler.acquire()
    thread = threading.Thread(target=handler.handle, args=(own,), daemon=True)
    thread.start()
    thread.join(PATIENCE)

    assert not thread.is_alive()
    handler.release()


@pytest.fixture
def send(ingest: FlakyIngest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Return a function that runs the command with these lines as its input, and returns its exit code."""
    options = ["--endpoint", ingest.url, "--key", KEY, "--spool", str(tmp_path / "spool"), "--timeout", "60"]

    def run(lines: bytes | Iterator[bytes], *arguments: str) -> int:
        read = io.BytesIO(lines) if isinstance(lines, bytes) else lines
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=read))
        return command.main([*options, *arguments])

    return run


def test_the_command_sends_lines(ingest: FlakyIngest, send: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is an event, for its own table or the option's; the exit code is 0 if all are accepted, however long it may wait."""
    lines = b'{"n": 1, "table": null}\n\n{"n": 2, "table": "visits"}\n'
    assert 0 == send(lines, "--table", "orders", "--timeout", "inf")
    for seconds in ("nan", "-1", "3x"):
        with pytest.raises(SystemExit, match="2"):
            send(lines, "--timeout", seconds)
        assert f"not a number of seconds: {seconds!r}" in capsys.readouterr().err
    assert [("orders", 1), ("visits", 2)] == [(table, row["n"]) for table, row in ingest.site.rows()]


def test_the_command_fails_if_an_event_is_lost(
    ingest: FlakyIngest, send: Send, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names each line that is not an event, the exit code is 1, and the other lines are sent; so if Sluice rejects one."""
    bad = [b"nonsense", b"[1]", b'{"table": "No"}', b"{}", b"\xff", b"[" * 100_000]
    code = send(b"\n".join([b'{"table": "orders"}', *bad, b'{"table": "orders"}']))
    said = capsys.readouterr().err
    named = re.findall(r"line (\d+): ", said)
    rejected = send(json.dumps({"table": "orders", **REJECTED}).encode())

    assert (1, ["2", "3", "4", "5", "6", "7"], 2, 1) == (code, named, len(ingest.rows()), rejected)
    assert "line 5: it names no table: give it a member `table`, or use --table\n" in said


def test_the_command_waits_for_room(ingest: FlakyIngest, client: Make) -> None:
    """More lines than the spool holds are delivered; only if the endpoint does not accept any in time, the others are lost."""
    one = client(spool_bytes=450)
    lines = [b'{"time": 1764000000}'] * 20
    assert 0 == command.track_lines(one, lines, "orders", PATIENCE)
    assert one.flush(PATIENCE)
    ingest.fault, ingest.retry_after = "unavailable", "0"

    assert (20, 1) == (len(ingest.rows()), command.track_lines(one, lines, "orders", 0.1))


@pytest.mark.parametrize("code", [75, 130])
def test_the_command_keeps_events_while_the_endpoint_is_down(
    ingest: FlakyIngest, send: Send, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    """The exit code is 75, or 130 after Ctrl-C while it waits for more lines. The message names what the next run must use, too."""

    def lines() -> Iterator[bytes]:
        yield b'{"table": "orders"}\n'
        if code == 130:
            raise KeyboardInterrupt

    ingest.fault = "unavailable"
    first = send(lines(), "--timeout", "0.1")
    ingest.fault = "none"

    kept = f"kept in {tmp_path}/spool, and the next run for {ingest.url} sends"
    said = {
        75: f"{ingest.url} has not accepted all events yet; the rest is {kept} it",
        130: f"interrupted; events stored until then: 1; what is not accepted yet is {kept} it",
    }
    assert f"sluice-send: {said[code]}" == capsys.readouterr().err.splitlines()[-1]
    assert (code, 0, 1) == (first, send(b""), len(ingest.rows()))


def test_the_command_sends_what_programs_have_left(ingest: FlakyIngest, tmp_path: Path, send: Send) -> None:
    """The exit code 0 covers all of it."""
    send(b'{"table": "orders"}')
    [folder] = (tmp_path / "spool").iterdir()
    directory = SpoolDirectory(folder, Limits(500, 900_000, 1_000_000))
    left = [directory.own() for _ in range(16)]
    for file in left:
        file.append(encode("orders", {}, 7)[1])
        file.close()

    assert (0, 17, []) == (send(b""), len(ingest.rows()), files(tmp_path))
