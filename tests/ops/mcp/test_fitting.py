"""Answers that are shortened to what fits."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ops.mcp.fitting import as_text, fitted, size

TEXTS = st.text() | st.text(alphabet='"\\\n\x00é雪\ud800', max_size=300)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(TEXTS, inner, max_size=40),
    max_leaves=50,
)


@given(VALUES, st.integers(8, 2000))
def test_the_result_fits(value: Any, most: int) -> None:
    """This holds for any JSON value and any number of bytes, counted in the message that carries the text. What is shortened has a mark."""
    shown = fitted(value, most)

    assert size(shown) <= most
    assert len(json.dumps(as_text(shown), ensure_ascii=False).encode()) - 2 == size(shown)
    assert most < 64 or shown == value or "…" in as_text(shown)


@given(VALUES)
def test_what_fits_is_not_changed(value: Any) -> None:
    """Not even if it fits exactly."""
    assert value == fitted(value, max(64, size(value)))


def test_a_mark_says_how_much_is_missing() -> None:
    """A list and an object keep their first items whole. Small members stay whole beside a large one, also behind it."""
    rows = [{"account": "shop", "rows": number} for number in range(100)]
    some = fitted(rows, 600)
    shown = fitted({"shards": list(range(5000)), "verdict": "HEALTHY", "note": "x" * 5000}, 1000)
    first = fitted({f"column_{number}": "x" * 20 for number in range(1000)}, 2000)

    assert rows[: len(some) - 1] == some[:-1]
    assert f"… {101 - len(some)} of 100 left out" == some[-1]
    assert "HEALTHY" == shown["verdict"]
    assert 70 < len(shown["shards"]) < 140
    assert 300 < len(shown["note"]) < 600
    assert shown["note"].endswith(f" {5000 - shown['note'].count('x')} more characters")
    assert "x" * 20 == first["column_0"]
    assert f"{1001 - len(first)} left out" == first["…"]
