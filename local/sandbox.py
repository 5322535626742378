"""One function as a part of the local stack: `python -m local.sandbox FUNCTION RESOURCES`.

The environment is the function's own, as in Lambda's sandbox. What calls it, and how, depends on the function.
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

from botocore.exceptions import BotoCoreError, ClientError

from doubles.event_source import EventSourceMapping, StreamPoller
from doubles.gateway import Gateway, Record
from doubles.invocation_api import InvocationApi
from doubles.lambda_context import Context
from doubles.queue_source import QueueSource
from local.event_source import EventSource
from local.functions import DRAIN, FUNCTIONS, INGEST, REDRIVE, WORKER, Function
from local.lifeline import Lifeline
from local.resources import ACCOUNT_ID, REGION, Resources
from shared.clock import SystemClock

_log = logging.getLogger("local.sandbox")

_QUEUE_REST_SECONDS = 1.0

Handler = Callable[[dict[str, Any], Any], Any]


def load(function: Function) -> Handler:
    """Return the function's handler, imported as Lambda's runtime imports it."""
    module, _, name = function.handler.rpartition(".")
    handler: Handler = getattr(importlib.import_module(module), name)
    return handler


def serve_ingest(handler: Handler, lifeline: Lifeline, record: Path | None) -> None:
    """Put the function behind the gateway."""
    with ExitStack() as ended, Gateway(handler, record=_recorder(ended, record)) as gateway:
        lifeline.ready(url=gateway.url)
        lifeline.wait()


def _recorder(ended: ExitStack, path: Path | None) -> Record:
    """Return what writes each request down, if there is where to."""
    if path is None:
        return lambda *_: None
    file = ended.enter_context(path.open("a"))
    one_at_a_time = threading.Lock()

    def record(method: str, target: str, headers: Any, body: bytes, event: Any) -> None:
        line = {"method": method, "target": target, "headers": headers, "body": b64encode(body).decode()}
        with one_at_a_time:
            file.write(json.dumps(line | {"event": event}) + "\n")
            file.flush()

    return record


def serve_worker(
    handler: Handler, lifeline: Lifeline, made: Resources, window: float, invoked_at: str
) -> None:
    """Put the function behind the stream, whose batches may fill for `window` seconds."""
    mapping = EventSourceMapping(
        event_source_arn=made.stream_arn,
        batch_size=5000,
        maximum_batching_window_seconds=window,
        discovery_seconds=5,
    )
    source = EventSource(
        StreamPoller(made.client("kinesis"), mapping),
        handler,
        clock=SystemClock(),
        timeout_seconds=WORKER.timeout,
        function_name=WORKER.name,
        memory_limit_in_mb=WORKER.memory,
    )
    threading.Thread(target=source.run, args=(threading.Event(),), name="event source", daemon=True).start()
    lifeline.ready(invoke=invoked_at)
    lifeline.wait()


def serve_redrive(
    invoke: Callable[[dict[str, Any]], Any], lifeline: Lifeline, seconds: float, invoked_at: str
) -> None:
    """Call the function every that many seconds."""

    def call() -> None:
        try:
            invoke(_scheduled_event())
        except Exception:  # noqa: BLE001 -- Lambda survives whatever a function raises
            _log.exception("a scheduled run failed; the next one comes by itself")

    lifeline.ready(invoke=invoked_at)
    lifeline.wait(call, seconds)


def serve_drain(
    invoke: Callable[[dict[str, Any]], Any], lifeline: Lifeline, made: Resources, invoked_at: str
) -> None:
    """Put the function behind the overflow queue."""
    source = QueueSource(made.client("sqs"), made.queue_url, made.queue_arn, invoke)

    def poll() -> None:
        try:
            while source.poll():
                pass
        except (BotoCoreError, ClientError):
            _log.exception("the queue cannot be read")

    lifeline.ready(invoke=invoked_at)
    lifeline.wait(poll, _QUEUE_REST_SECONDS)


def serve(
    function: Function,
    invoke: Callable[[dict[str, Any]], Any],
    lifeline: Lifeline,
    made: Resources,
    options: argparse.Namespace,
) -> None:
    """Put the function behind what calls it, and behind Lambda's own API, with which people call it."""
    api = InvocationApi(function.name, invoke)
    if function is WORKER:
        serve_worker(load(function), lifeline, made, options.window, api.url)
    elif function is REDRIVE:
        serve_redrive(invoke, lifeline, options.every, api.url)
    elif function is DRAIN:
        serve_drain(invoke, lifeline, made, api.url)
    else:
        lifeline.ready(invoke=api.url)
        lifeline.wait()


def _scheduled_event() -> dict[str, Any]:
    """Return what EventBridge's schedule sends."""
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


def _invoker(function: Function, handler: Handler) -> Callable[[dict[str, Any]], Any]:
    clock = SystemClock()

    def invoke(event: dict[str, Any]) -> Any:
        context = Context(
            function_name=function.name,
            deadline=clock.now() + function.timeout,
            now=clock.now,
            memory_limit_in_mb=function.memory,
        )
        return handler(event, context)

    return invoke


def main() -> None:
    """Run the function until the starter ends."""
    lifeline = Lifeline()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser()
    parser.add_argument("function", choices=FUNCTIONS)
    parser.add_argument("made", type=json.loads, help="the resources")
    parser.add_argument("--record", type=Path, help="write down the gateway's requests here")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two scheduled runs")
    parser.add_argument(
        "--window", type=float, default=1.0, help="seconds for which the worker's batches may fill"
    )
    options = parser.parse_args()
    function, made = FUNCTIONS[options.function], Resources(**options.made)
    handler = load(function)
    if function is INGEST:
        serve_ingest(handler, lifeline, options.record)
    else:
        invoke = _invoker(function, handler)
        serve(function, invoke, lifeline, made, options)
    os._exit(0)  # no invocation is waited for: functions are to survive being killed at any moment


if __name__ == "__main__":
    main()
