"""Wraps a handler in Lambda's runtime and measures its start and its requests.

The variable MEASURED names the module with the handler. An event without `repeats` returns the cost of the start.
"""

import importlib
import os
import sys
import time
from resource import RUSAGE_SELF, getrusage
from typing import Any

_loaded, _wall, _cpu = len(sys.modules), time.perf_counter(), time.process_time()
_handler = importlib.import_module(os.environ["MEASURED"]).handler
_START = {
    "cpu": time.process_time() - _cpu,
    "wall": time.perf_counter() - _wall,
    "modules": len(sys.modules) - _loaded,
}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Call the handler `repeats` times with `event["event"]`, and return the CPU seconds of one call and the peak memory."""
    if "repeats" not in event:
        return _START
    request, answer = event["event"], {}
    begin = time.process_time()
    for _ in range(event["repeats"]):
        answer = _handler(request, context)
    spent = time.process_time() - begin
    if answer["statusCode"] != 200:
        raise RuntimeError(answer)
    return {"cpu": spent / event["repeats"], "peak_kib": getrusage(RUSAGE_SELF).ru_maxrss}
