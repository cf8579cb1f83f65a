"""Keys: one text per value, back to the value, and never the text of another."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from fourfold.projection import KeyCodec, KeyColumn

# Characters that the composite form treats specially come often.
TEXTS = st.text(st.one_of(st.sampled_from(",\\\n'é"), st.characters(exclude_categories=("Cs",))))
MOMENTS = st.datetimes(min_value=dt.datetime(1000, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001 - hypothesis wants it naive
VALUES = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "text": TEXTS,
    "uuid": st.uuids(),
    "bytes": st.binary(),
    "date": st.dates(),
    "timestamp": MOMENTS,
    "boolean": st.booleans(),
}


@st.composite
def codecs_with_keys(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    codec = KeyCodec(tuple(KeyColumn(f"c{index}", kind) for index, kind in enumerate(kinds)))
    row = st.tuples(*(VALUES[kind] for kind in kinds))
    return codec, draw(row), draw(row)


@given(codecs_with_keys())
def test_key_comes_back_and_distinct_keys_have_distinct_texts(drawn):
    codec, one, other = drawn
    assert codec.decode(codec.encode(one)) == one
    assert (codec.encode(one) == codec.encode(other)) == (one == other)


@given(st.lists(TEXTS, min_size=2, max_size=5))
def test_composite_text_keys_keep_their_parts_apart(parts):
    codec = KeyCodec(tuple(KeyColumn(f"c{index}", "text") for index in range(len(parts))))
    assert codec.decode(codec.encode(parts)) == tuple(parts)
