"""Hypothesis strategies for JSON values, including odd ones."""

from typing import Any

from hypothesis import strategies as st

odd_texts = st.text(st.characters(exclude_categories=()), max_size=12)
"""Any text, including lone surrogates, which JSON can escape but UTF-8 cannot encode."""
plain_texts = st.text(max_size=12)
extremes = st.sampled_from([-(2**63), 2**64])
integers = st.one_of(st.integers(-1000, 1000), st.integers(-(2**70), 2**70), extremes)
scalars = st.one_of(st.none(), st.booleans(), integers, st.floats(), odd_texts)


def _nested(leaves: st.SearchStrategy[Any], members: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(members, inner, max_size=4)),
        max_leaves=12,
    )


finite_floats = st.floats(allow_nan=False, allow_infinity=False)
finite = _nested(st.one_of(st.none(), st.booleans(), integers, finite_floats, plain_texts), plain_texts)
"""Any nested value that JSON in UTF-8 can represent."""
values = _nested(scalars, odd_texts)
_RULED = ["time", "Time", "event_id", "received_at", "table", "v", "V", "td_ip", "a", "A", "a!", "a_2", "1"]
names = st.one_of(odd_texts, st.sampled_from(_RULED))
"""Any member name, often one that a rule applies to."""
events = st.dictionaries(names, values, max_size=12)
