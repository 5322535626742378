"""Stands between Lambda's runtime and a handler, and measures it: how it starts, and what a request costs.

The module whose `handler` is measured is named by the variable MEASURED. An event without `repeats` is answered with what the start took.
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
    """Hand `event["event"]` to the measured handler so many times; return the CPU seconds of one, and the process's peak memory."""
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
