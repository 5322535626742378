"""What the ledger keeps of Treasure Data's own explanation of a refusal."""

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import Delivery, envelope, row
from worker.rows import compress
from worker.treasure_data.answer import TdAnswer
from worker.treasure_data.explanation import MOST_BYTES, explanation_of, kept

SECRETS = st.one_of(
    st.text("ab@. 1é茶", min_size=3, max_size=12).filter(lambda text: len(" ".join(text.split())) >= 3),
    st.integers(100, 10**12),
    st.floats(100, 1e6),
)


def body(*rows: dict[str, Any]) -> bytes:
    """Return rows as they are imported."""
    return compress(b"".join(map(msgpack.packb, rows)))


def refused(message: str) -> TdAnswer:
    """Return an answer with an explanation."""
    return TdAnswer(422, json.dumps({"message": message}).encode())


@given(
    st.lists(st.dictionaries(st.sampled_from(["a_column", "b_column"]), SECRETS), min_size=1),
    st.lists(st.sampled_from(["column", "is", "invalid", ",", "茶", "A_COLUMN"]), max_size=400),
    st.data(),
)
def test_no_value_of_a_row_is_kept(rows: list[dict[str, Any]], words: list[str], data: st.DataObject) -> None:
    """Wherever it stands in the explanation, quoted or not, in whatever case. What is kept is bounded in bytes."""
    values = [value for one in rows for value in one.values()]
    for value in data.draw(st.lists(st.sampled_from(values or ["none"]), max_size=5)):
        at = data.draw(st.integers(0, len(words)))
        words.insert(at, data.draw(st.sampled_from([str(value), str(value).upper(), f"`{value}`"])))
    shown = kept(explanation_of(refused(" ".join(words))), body(*rows))

    assert len(shown.encode()) <= MOST_BYTES
    assert [] == [one for one in values if " ".join(str(one).split()).casefold() in shown.casefold()]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(body({"text": "x" * (4 << 20)}), id="many rows"),
        pytest.param(body({f"c{n}": f"{n:04}" for n in range(0, 9000, 5)}), id="many values"),
        pytest.param(b"damaged", id="damaged"),
        pytest.param(compress(b"\x81\x90\x01"), id="no row"),
    ],
)
def test_nothing_is_kept_if_values_are_unknown_or_the_search_for_them_would_take_long(rows: bytes) -> None:
    """A hostile sender may name each part of an explanation in a row: each refusal would keep its thread for seconds."""
    words = "column is invalid " + "".join(f"{n:04}" for n in range(0, 9000, 5))

    assert "" == kept(words, rows)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("column `email` has no type", "column \u2026 has no type"),
        ("row 3:\n  email is taro@example.com", "row 3: email is \u2026"),
        ("phone 819012345678 is too long", "phone \u2026 is too long"),
        ("tags contain Kyoto", "tags contain \u2026"),
        pytest.param("茶" * 300, "茶" * 66, id="long"),
        pytest.param("x" * 990 + " taro@exam", "", id="cut"),
        ("", ""),
    ],
)
def test_an_explanation_is_kept_without_values(message: str, expected: str) -> None:
    """Names of columns stay. One that may end within a value is dropped, unless its end is cut off anyway."""
    rows = body({"email": "taro@example.com", "phone": 819012345678, "tags": ["Kyoto"], "x": "x" * 990})

    assert expected == kept(explanation_of(refused(message)), rows)


@pytest.mark.parametrize(
    ("status", "state", "reason", "action"),
    [
        (422, "dead", "http_422", Action.IMPORT),
        (415, "dead", "http_415", Action.IMPORT),
        (403, "waiting", "http_403", Action.IMPORT),
        (403, "dead", "may_not_create", Action.CREATE),
    ],
)
def test_an_explanation_stays_with_the_chunk(status: int, state: str, reason: str, action: Action) -> None:
    """Whether its rows are dead or wait, and also if its table may not be created."""
    made = Delivery().map(shop="shop_db")
    made.td.create("shop_db", *(["views"] if action is Action.IMPORT else []))
    message = "email taro@example.com has no permission for shop_db"
    document = {"error": "x", "message": message, "text": message, "severity": "error", "status_code": status}
    made.td.faults.add(Fault(kind=Kind.STATUS, action=action, status=status, body=json.dumps(document)))
    made.put(envelope("shop", {"views": [row("a", email="taro@example.com", phone=819012345678)]}))
    made.deliver()
    [(_, entry)] = made.spans()[0].all_leaves()

    shown = "email \u2026 has no permission for shop_db"
    assert (state, reason, shown) == (entry.state.value, entry.reason, entry.words)
