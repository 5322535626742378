"""What the console's page requests."""

from collections.abc import Callable, Mapping
from typing import Any

from ops.console.actions import DROPPABLE, REDRIVABLE, Actions
from ops.console.live_feed import LiveFeed
from ops.console.server import Data
from ops.console.view import ConsoleView


def page_data(
    view: ConsoleView,
    actions: Actions,
    feed: LiveFeed,
    *,
    allow_changes: bool,
    more: Callable[[], Mapping[str, Any]] = dict,
) -> Data:
    """Return the page's data sources, by path. `more` adds members to the state."""

    def state(_: Mapping[str, str]) -> dict[str, Any]:
        return view.state() | {
            "allows_changes": allow_changes,
            "redrivable": REDRIVABLE,
            "droppable": DROPPABLE,
            "actions": actions.shown(),
            **more(),
        }

    return {"/state.json": state, "/events.json": feed.page}
