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


def test_a_list_keeps_its_first_items_whole() -> None:
    """The mark says how many are missing."""
    rows = [{"account": "shop", "rows": number} for number in range(100)]
    shown = fitted(rows, 600)

    assert rows[: len(shown) - 1] == shown[:-1]
    assert f"… {101 - len(shown)} of 100 left out" == shown[-1]


def test_small_members_stay_whole_beside_a_large_one() -> None:
    """What comes after a long list is shown, too."""
    shown = fitted({"shards": list(range(5000)), "verdict": "HEALTHY", "note": "x" * 5000}, 1000)

    assert "HEALTHY" == shown["verdict"]
    assert 70 < len(shown["shards"]) < 140
    assert 300 < len(shown["note"]) < 600
    assert shown["note"].endswith(f" {5000 - shown['note'].count('x')} more characters")


def test_an_object_with_many_members_keeps_the_first() -> None:
    """The mark says how many are missing."""
    shown = fitted({f"column_{number}": "x" * 20 for number in range(1000)}, 2000)

    assert "x" * 20 == shown["column_0"]
    assert f"{1001 - len(shown)} left out" == shown["…"]
