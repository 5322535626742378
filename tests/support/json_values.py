"""Hypothesis strategies for JSON values, including odd ones."""

from typing import Any

from hypothesis import strategies as st

odd_texts = st.text(st.characters(exclude_categories=()), max_size=12)
"""Any text, including lone surrogates, which JSON can escape but UTF-8 cannot encode."""
integers = st.one_of(
    st.integers(-1000, 1000), st.integers(-(2**70), 2**70), st.sampled_from([-(2**63), 2**64])
)
floats = st.floats()
scalars = st.one_of(st.none(), st.booleans(), integers, floats, odd_texts)
finite: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        integers,
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=12),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Any nested value that JSON in UTF-8 can represent."""
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(odd_texts, inner, max_size=4)),
    max_leaves=12,
)
names = st.one_of(
    odd_texts,
    st.sampled_from(
        ["time", "Time", "event_id", "received_at", "table", "v", "V", "td_ip", "a", "A", "a!", "a_2", "1"]
    ),
)
"""Any member name, often one that a rule applies to."""
events = st.dictionaries(names, values, max_size=12)
