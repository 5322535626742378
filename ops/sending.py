"""Sends or drops chunks, through the sender's function."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import batched
from typing import Any

from ops.failure import Failure
from ops.stack import Stack

_MOST_CHUNKS = 5000  # whose names fit the 6 MB of an invocation
OUTCOMES = ("delivered", "kept", "dead", "dropped", "copies")


def balanced(selected: int, totals: Mapping[str, int]) -> dict[str, int]:
    """Return the totals with `selected` and `untried`, so that each selected row counts once.

    Rows that somebody else settled in the meantime count as untried.
    """
    tried = sum(totals[name] for name in OUTCOMES) + totals.get("replaced", 0)
    return {"selected": max(selected, tried), **totals, "untried": max(0, selected - tried)}


def send(stack: Stack, event: Mapping[str, Any], tell: Callable[[int], None]) -> dict[str, int]:
    """Invoke the sender until it has tried everything or makes no progress; return the rows by outcome.

    `chunks` of the event names what to send or drop. `tell` is called with the number of rows delivered so far.

    Raises:
        Failure: the sender failed, or refuses.
    """
    sums: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
    is_complete = True
    for chunks in batched(event["chunks"], _MOST_CHUNKS, strict=False):
        totals = _send(stack, {**event, "chunks": chunks}, lambda rows: tell(sums["delivered"] + rows))
        is_complete &= bool(totals.pop("complete"))
        sums.update(totals)
    return {**sums, "complete": is_complete}


def _send(stack: Stack, event: Mapping[str, Any], tell: Callable[[int], None]) -> dict[str, int]:
    """Invoke the sender for chunks whose names fit one invocation.

    Each run selects again the rows that the last one kept, so only the last count of kept rows matters. Other outcomes add up.
    """
    totals = dict.fromkeys(OUTCOMES, 0)
    while True:
        report = stack.invoke("SenderFunction", event)
        if "error" in report:
            raise Failure(
                f"the sender does nothing now: {report['message']}; `sluice doctor {stack.option}` says what to do"
            )
        replaced = totals.get("replaced", 0) + report.get("replaced", 0)
        totals = {name: totals[name] + report[name] for name in OUTCOMES} | {"kept": report["kept"]}
        totals |= {"replaced": replaced} if replaced else {}
        tell(totals["delivered"])
        if report["complete"] or not report["delivered"] + report["dead"] + report["dropped"]:
            return totals | {"complete": report["complete"]}
