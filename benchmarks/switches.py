"""`python -m benchmarks.switches`: count how often the worker switches between modules for one row of a warm invocation.

It measures how far a reader of the code has to jump. A switch is a call of a function in `worker/` or `shared/` that is in a
different module from the function called before it.
"""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.delivery import Delivery, envelope, row

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("worker", "shared")


def main() -> None:
    """Print each call, then the totals."""
    delivery = Delivery()
    delivery.map(shop="shop_db")
    delivery.td.create("shop_db", "views")
    for number in range(3):
        delivery.put(envelope("shop", {"views": [row(f"e{number}")]}, request_id=f"r{number}"))
        if number < 2:  # the first two make the worker warm
            delivery.deliver(number, number + 1)
    event, deadline = delivery.event(2, 3), delivery.deadline()
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, what: str, _argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if what == "call" and path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _PACKAGES:
            calls.append((path.relative_to(_ROOT).as_posix(), frame.f_code.co_qualname))

    sys.setprofile(note)
    delivery.worker.run(event, deadline)
    sys.setprofile(None)
    modules = [module for module, _ in calls]
    for module, function in calls:
        print(f"{module}  {function}")
    switches = sum(now != before for before, now in zip([None, *modules], modules, strict=False))
    print(f"{len(calls)} calls in {len(set(modules))} modules, {switches} switches")


if __name__ == "__main__":
    main()
