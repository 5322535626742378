"""Checks `sluice find`: it must find every accepted event, in the state that Treasure Data and S3 show."""

from collections import defaultdict
from collections.abc import Iterable

from chaos.audit import Audit, Impatient
from chaos.world import STREAM, World
from ops.events.finder import Finder, Stage, Whereabouts
from ops.events.sightings import EventQuery, Places
from shared.errors import UnavailableError
from worker.delivery import ASIDE
from worker.shards import Shards

_ASIDE = frozenset(Stage(state.value) for state in ASIDE)
_NOT_YET = frozenset((Stage.QUEUED, Stage.WAITING, Stage.IN_FLIGHT))


def faults(
    world: World, audit: Audit, numbers: Iterable[int], *, may_query: bool, settled: bool
) -> list[str]:
    """Search for all events, and return where the result is wrong.

    Args:
        world: in its current state.
        audit: reads its books.
        numbers: the accepted events that must be found.
        may_query: whether the API key may query, so that rows can leave doubt.
        settled: whether everything has settled.
    """
    clock = Impatient(world)
    finder = Finder(
        places=Places(
            Shards(world.stream, STREAM, clock),  # type: ignore[arg-type]  # a double
            audit.archive,
            world.queue,  # type: ignore[arg-type]  # a double
            world.queue_url,
        ),
        ledger=audit.ledger,
        store=audit.store,
        clock=clock,
    )
    found: defaultdict[int, list[Whereabouts]] = defaultdict(list)
    try:
        whereabouts, progress = finder.find(EventQuery(), 0.0, 3600.0)
    except UnavailableError as error:  # a defence is left out
        return [f"the search failed: {error}"]
    for one in whereabouts:
        is_of_traffic = "n" in one.seen.row  # and not garbage
        if is_of_traffic and one.stage is not Stage.REJECTED:
            found[int(one.seen.row["n"])].append(one)
    delivered = {int(row["n"]) for taken in world.td.imports() for row in taken.rows}
    aside = {int(row["n"]) for held in audit.held() if not held.key.group.code for row in held.values or ()}
    wrong = []
    for number in numbers:
        stages = {one.stage for one in found[number]}
        if not stages and progress.hidden:
            continue
        is_true = bool(stages) and Stage.UNKNOWN not in stages
        is_true &= number in delivered or Stage.DELIVERED not in stages
        is_true &= number in aside or not stages & _ASIDE
        if settled:
            is_true &= not stages & _NOT_YET
            is_known = Stage.DELIVERED in stages or (number in aside and not may_query)
            is_true &= number not in delivered or is_known
            is_true &= number not in aside or bool(stages & _ASIDE)
        if not is_true:
            truth = [
                name for name, numbers in (("delivered", delivered), ("aside", aside)) if number in numbers
            ]
            wrong.append(f"event {number} is {truth}, and found as {sorted(stages)}")
    return wrong
