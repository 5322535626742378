"""One function, as one part of the local stack: `python -m local.function_host FUNCTION RESOURCES FOLDER`.

The process has the function's own environment variables, as in Lambda. What invokes the function depends on its trigger.
"""

import argparse
import importlib
import json
import logging
import os
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from doubles.event_source import EventSourceMapping
from doubles.event_source.pollers import StreamPoller
from doubles.gateway import Gateway, Record
from doubles.http_server import Request, Response
from doubles.iam import ACCOUNT_ID, REGION
from doubles.invocation_api import InvocationApi
from doubles.lambda_context import Context
from doubles.sqs import pass_on
from local import functions
from local.bad import FILE, bad_lines
from local.event_source import EventSource
from local.functions import DRAIN, FUNCTIONS, INGEST, SENDER, WORKER, Function
from local.parent_watch import ParentWatch
from local.resources import Resources
from local.result import answer_line
from ops.logs.answers import ANSWERS
from shared.clock import SystemClock

_log = logging.getLogger("local.function_host")

_QUEUE_REST_SECONDS = 1.0

Handler = Callable[[dict[str, Any], Any], Any]


def load(function: Function) -> Handler:
    """Import the function's handler as Lambda's runtime does, and return it."""
    module, _, name = function.handler.rpartition(".")
    handler: Handler = getattr(importlib.import_module(module), name)
    return handler


def serve_ingest(handler: Handler, parent: ParentWatch, options: argparse.Namespace) -> None:
    """Serve the function behind the gateway, and log what each response says about the events."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    answers, bad = (os.open(options.folder / name, append, 0o600) for name in (ANSWERS, FILE))
    clock = SystemClock()

    def answered(request: Request, reply: Response) -> None:
        try:
            os.write(answers, answer_line(request, reply))
            os.write(bad, bad_lines(request, reply, clock.now()))
        except Exception:  # noqa: BLE001 -- the sender gets the function's answer, whatever becomes of the page
            _log.exception("the page does not show a response")

    with (
        ExitStack() as files,
        Gateway(
            handler, record=_recorder(files, options.record), answered=answered, port=options.port
        ) as gateway,
    ):
        parent.ready(url=gateway.url, port=gateway.port)
        parent.wait()


def _recorder(files: ExitStack, path: Path | None) -> Record:
    """Return a callback that appends each request to the file, or does nothing if there is none."""
    if path is None:
        return lambda *_: None
    file = files.enter_context(path.open("a"))
    lock = threading.Lock()

    def record(method: str, target: str, headers: Any, body: bytes, event: Any) -> None:
        line = {"method": method, "target": target, "headers": headers, "body": b64encode(body).decode()}
        with lock:
            file.write(json.dumps(line | {"event": event}) + "\n")
            file.flush()

    return record


def serve(function: Function, handler: Handler, parent: ParentWatch, options: argparse.Namespace) -> None:
    """Connect the function to its trigger, and to Lambda's Invoke API, which the commands use."""
    clock, resources = SystemClock(), Resources(**options.resources)

    def invoke(event: dict[str, Any]) -> Any:
        context = Context(
            function_name=function.name,
            deadline=clock.now() + function.timeout,
            now=clock.now,
            memory_limit_in_mb=function.memory,
        )
        return handler(event, context)

    queue = resources.client("sqs"), resources.queue_url, resources.queue_arn

    def beat() -> None:
        try:
            if function is SENDER:
                invoke(_scheduled_event())
            while function is DRAIN and pass_on(*queue, invoke):
                pass
        except Exception:  # noqa: BLE001 -- Lambda survives any exception of a function
            _log.exception("a run failed; the next one starts on schedule")

    api = InvocationApi(function.name, invoke, port=options.port)
    if function is WORKER:
        _feed(handler, resources, options)
    parent.ready(invoke=api.url, port=api.port)
    parent.wait(beat, {SENDER: options.every, DRAIN: _QUEUE_REST_SECONDS}.get(function))


def _feed(handler: Handler, resources: Resources, options: argparse.Namespace) -> None:
    """Invoke the worker with batches of the stream, which may fill for `--window` seconds, from now on."""
    checkpoints = Checkpoints(options.folder / "checkpoints.json")
    deployed = functions.event_source(WORKER, "Stream", resources)
    mapping = EventSourceMapping(
        event_source_arn=deployed["Stream"],
        batch_size=int(deployed["BatchSize"]),
        maximum_batching_window_seconds=options.window,
        discovery_seconds=5,
    )
    source = EventSource(
        StreamPoller(resources.client("kinesis"), mapping, checkpoints.by_shard),
        handler,
        clock=SystemClock(),
        timeout_seconds=WORKER.timeout,
        function_name=WORKER.name,
        memory_limit_in_mb=WORKER.memory,
        settled=checkpoints.settled,
    )
    stopped = threading.Event()  # never set: the process exits without waiting
    threading.Thread(target=source.run, args=(stopped,), name="event source", daemon=True).start()


class Checkpoints:
    """Where the event source continues in each shard, stored as Lambda does for an event source mapping.

    Args:
        path: the file.

    Attributes:
        by_shard: sequence number of the last settled record, by shard id.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.by_shard: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def settled(self, shard: str, sequence_number: str) -> None:
        """Store a shard's last settled record."""
        self.by_shard[shard] = sequence_number
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self.by_shard))
        new.replace(self._path)


def _scheduled_event() -> dict[str, Any]:
    """Return the event of an EventBridge schedule."""
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/sluice-local"],
        "detail": {},
    }


def main() -> None:
    """Run the function until the parent process ends."""
    parent = ParentWatch()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser()
    parser.add_argument("function", choices=FUNCTIONS)
    parser.add_argument("resources", type=json.loads, help="the resources")
    parser.add_argument("folder", type=Path, help="where the stack keeps its data")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--record", type=Path, help="append the gateway's requests to this file")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between scheduled runs")
    parser.add_argument(
        "--window", type=float, default=1.0, help="seconds that the worker's batches may fill"
    )
    options = parser.parse_args()
    function = FUNCTIONS[options.function]
    if function is INGEST:
        serve_ingest(load(function), parent, options)
    else:
        serve(function, load(function), parent, options)
    os._exit(0)  # do not wait for invocations: functions must survive being killed at any moment


if __name__ == "__main__":
    main()
