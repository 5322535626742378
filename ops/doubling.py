"""What a forced replay would bring to stand in Treasure Data twice: rows that are set aside and will go out themselves."""

from collections import Counter
from collections.abc import Collection

from ops import screen
from ops.failure import Failure
from ops.stream import Border
from worker.aside import Aside, SetAside
from worker.forced import Forced
from worker.record import is_reason
from worker.span import Kind

LOOKED_INTO = 1000
"""Of more dead letters than these none is looked into: all of them count."""


def refuse(
    aside: Aside, shards: Collection[str], borders: tuple[Border, Border], forced: Forced, option: str
) -> None:
    """Refuse a forced replay while rows of what it sends again are set aside.

    What is parked or in doubt goes out by itself. A dead letter does so by hand, perhaps much later; it counts where it
    holds rows of the stretch, unless this very replay has planned it before: that does not send it again.

    Args:
        aside: the bucket.
        shards: that are replayed.
        borders: from where to where.
        forced: what is sent again.
        option: names the stack on a command line.

    Raises:
        Failure: some are.
        AsideUnavailableError: S3 cannot be reached.
    """
    waiting = sum(
        one.rows
        for kind in (Kind.PARKED, Kind.IN_DOUBT)
        for one in aside.listed(kind, forced.account, forced.table)
    )
    if waiting:
        raise Failure(
            f"{screen.plural(waiting, 'row')} of this {'is' if waiting == 1 else 'are'} set aside and would be doubled: "
            f"send them first, `sluice redrive {option}`, or narrow the replay with --account and --table"
        )
    dead = _dead(aside, shards, borders, forced)
    if dead:
        places = ", ".join(f"{account}/{table}" for account, table in sorted(dead))
        count = dead.total()
        raise Failure(
            f"{screen.plural(count, 'row')} of {places} {'is a dead letter' if count == 1 else 'are dead letters'}, and would "
            f"be doubled by a later redrive: send them first, `sluice redrive {option} --kind dead`, or narrow the replay with --account and --table"
        )


def _dead(
    aside: Aside, shards: Collection[str], borders: tuple[Border, Border], forced: Forced
) -> Counter[tuple[str, str]]:
    """Return the dead letters' rows of the stretch by account and table."""
    listed = [
        one
        for one in aside.listed(Kind.DEAD_LETTER, forced.account, forced.table)
        if not is_reason(one.table)  # what never became rows is not sent again
    ]
    rows: Counter[tuple[str, str]] = Counter()
    for one in listed:
        chunk = aside.get(one.name) if len(listed) <= LOOKED_INTO else None
        if len(listed) > LOOKED_INTO or (
            chunk is not None and not _is_planned(chunk, forced) and _concerns(chunk, shards, *borders)
        ):
            rows[one.account, one.table] += one.rows
    return rows


def _is_planned(chunk: SetAside, forced: Forced) -> bool:
    """Tell whether a chunk stands in the replay's own chain, or in a hole of that."""
    return f"{forced.chain('')}#" in f"{chunk.chain}#"


def _concerns(chunk: SetAside, shards: Collection[str], start: Border, end: Border) -> bool:
    """Tell whether a record that a chunk's rows came in may lie in the stretch."""
    if chunk.shard not in shards or not chunk.sequence_numbers:
        return False  # what was set aside past the stream is not on it
    return any(_is_inside(chunk, int(number), start, end) for number in chunk.sequence_numbers)


def _is_inside(chunk: SetAside, number: int, start: Border, end: Border) -> bool:
    if start.number is not None and number < start.number:
        return False
    if end.number is not None and number > end.number:
        return False
    if start.at is not None and chunk.last_seen < start.at * 1000:
        return False
    return end.at is None or chunk.first_seen < end.at * 1000
