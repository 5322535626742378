"""When tables received rows, according to the spans."""

from dataclasses import replace

from ops.books.table_history import History, TableHistory
from tests.support import spans
from tests.support.spans import CHAIN
from worker.chain import ChainId
from worker.record import START
from worker.span import ChunkKey, Group, RowSender, Span

NOW = 1_700_000_000.0


def span(age: float, rows: int, *, key_id: str = "", chain: ChainId = CHAIN) -> Span:
    """Return a span with rows of one table that was planned `age` seconds ago."""
    chunks = {ChunkKey(Group(RowSender("shop", key_id), "views"), 0): rows}
    return spans.span(chain=chain, planned_at=round((NOW - age) * 1000), chunks=chunks)


def test_rows_count_in_the_hour_in_which_they_were_planned() -> None:
    """Rows of a revoked key count for the table too."""
    history = History(NOW, NOW - 7200)
    for one in (span(100_000, 5), span(7000, 7), span(60, 1), span(10, 2, key_id="k9")):
        history.add(one)
    expected = TableHistory(NOW - 100_000, NOW - 10, 3, [0] * 22 + [7, 3])

    assert {("shop", "views"): expected} == history.tables
    assert (10, 6) == (history.rows, history.records)


def test_spans_of_a_forced_replay_do_not_count() -> None:
    """Their rows are sent again but were received only once."""
    history = History(NOW, 0.0)
    history.add(span(10, 4, chain=ChainId.forced("tag", CHAIN, START)))

    assert {} == history.tables
    assert 0 == history.rows


def test_a_span_from_the_future_counts_as_planned_now() -> None:
    """The clock of this machine may be behind the worker's."""
    history = History(NOW, 0.0)
    history.add(span(-30, 4))

    assert (4, 4) == (history.tables["shop", "views"].recent, history.tables["shop", "views"].hours[-1])


def test_rejected_events_are_not_rows() -> None:
    """They do not count as received."""
    history = History(NOW, 0.0)
    rejected = ChunkKey(Group(RowSender("shop"), "views", "too_deep", is_rejected=True), 0)
    one = span(0, 2)
    history.add(replace(one, chunks={**one.chunks, rejected: 5}))

    assert (2, [("shop", "views")]) == (history.rows, list(history.tables))
