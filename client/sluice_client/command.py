"""The command `sluice-send`: sends lines of JSON."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from sluice_client.client import Client, spool_folder
from sluice_client.errors import InvalidEventError, SluiceError, SpoolFullError
from sluice_client.sender import Rejection
from sluice_client.version import VERSION

DELIVERED, NOT_STORED, USAGE, KEPT, INTERRUPTED = 0, 1, 2, 75, 130

_EPILOG = """
exit codes:
  0   Sluice has accepted every event
  1   an event was lost: invalid, rejected, or not stored; the messages say which, and all others were sent or kept
  2   invalid options
  75  no event was lost, but some are not accepted yet; they are in the spool, and the next run with the same
      endpoint sends them. Do not send them again.
  130 stopped by Ctrl-C; the message says how many events were stored, and the next run likewise sends what is left of them
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Send events from standard input, one JSON object per line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sluice-send",
        description="Send events to Sluice from standard input, one JSON object per line.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--endpoint", default=os.environ.get("SLUICE_ENDPOINT"), help="Sluice's URL; or SLUICE_ENDPOINT"
    )
    parser.add_argument("--key", default=os.environ.get("SLUICE_KEY"), help="the write key; or SLUICE_KEY")
    parser.add_argument("--table", help="table of events whose `table` is absent or null")
    parser.add_argument("--spool", help="directory for undelivered events; or SLUICE_SPOOL")
    parser.add_argument("--timeout", type=_seconds, default=30.0, help="seconds to wait for Sluice (30)")
    parser.add_argument("--version", action="version", version=VERSION)
    options = parser.parse_args(arguments)
    if not options.endpoint or not options.key:
        parser.error("--endpoint and --key are required, or SLUICE_ENDPOINT and SLUICE_KEY")
    logging.basicConfig(format="sluice-send: %(message)s", level=logging.WARNING)
    rejected: list[Rejection] = []
    try:
        client = Client(options.endpoint, options.key, spool=options.spool, on_rejected=rejected.append)
    except (SluiceError, ValueError) as error:
        parser.error(str(error))
    kept = f"kept in {spool_folder(options.spool)}, and the next run for {options.endpoint} sends"
    try:
        client.resume()
        lost = track_lines(client, sys.stdin.buffer, options.table, options.timeout)
        delivered = client.close(options.timeout)
    except SluiceError as error:
        _complain(str(error))
        return NOT_STORED
    except KeyboardInterrupt:
        with suppress(SluiceError):  # the events are on disk
            client.close(0)
        stored = client.statistics().tracked
        _complain(f"interrupted; events stored until then: {stored}; what is not accepted yet is {kept} it")
        return INTERRUPTED
    if lost or rejected:
        return NOT_STORED
    if not delivered:
        _complain(f"{options.endpoint} has not accepted all events yet; the rest is {kept} it")
    return DELIVERED if delivered else KEPT


def script() -> None:
    """Run as a command."""
    sys.exit(main())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:  # NaN, too
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return seconds


def track_lines(client: Client, lines: Iterable[bytes], table: str | None, timeout: float) -> int:
    """Store an event from each line; return how many could not be stored.

    Args:
        client: stores them.
        lines: JSON objects; empty lines are skipped.
        table: table of events that name none.
        timeout: seconds to wait for room whenever the spool is full.
    """
    lost = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = _parse(line, table)
            try:
                client.track(event["table"], event)
            except SpoolFullError:
                client.flush(timeout)
                client.track(event["table"], event)
        except (InvalidEventError, ValueError, RecursionError) as error:
            lost += 1
            _complain(f"line {number}: {error}")
        except SluiceError as error:
            lost += 1
            _complain(f"line {number} and all after it were not stored: {error}")
            break
    return lost


def _parse(line: bytes, table: str | None) -> dict[str, Any]:
    event = json.loads(line)
    if not isinstance(event, dict):
        raise InvalidEventError("not a JSON object")
    if event.get("table") is None:
        event["table"] = table
    if event["table"] is None:
        raise InvalidEventError("it names no table: give it a member `table`, or use --table")
    return event


def _complain(text: str) -> None:
    print(f"sluice-send: {text}", file=sys.stderr)  # noqa: T201 -- a command
