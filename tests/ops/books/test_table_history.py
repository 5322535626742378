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
    """Rows of a revoked key count for the table too, and rows from the future as planned now; rejected events and forced replays do not."""
    history = History(NOW)
    rejected = ChunkKey(Group(RowSender("shop"), "views", "too_deep", is_rejected=True), 0)
    last = span(-30, 4)
    for one in (span(100_000, 5), span(7000, 7), span(60, 1), span(10, 2, key_id="k9")):
        history.add(one)
    history.add(replace(last, chunks={**last.chunks, rejected: 5}))
    history.add(span(10, 4, chain=ChainId.forced("tag", CHAIN, START)))
    expected = TableHistory(NOW - 100_000, NOW + 30, 7, [0] * 22 + [7, 7])

    assert {("shop", "views"): expected} == history.tables
