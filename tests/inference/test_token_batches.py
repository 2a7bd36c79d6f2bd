"""Batches for prediction have every text once, and no more tokens, texts and padding than they may."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hblm.inference.token_batches import batches

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 200), st.integers(1, 20), st.none() | st.integers(0, 80))
def test_limits_of_batches(lengths, tokens, texts, padding):
    made = [
        [lengths[at] for at in batch]
        for batch in batches(lengths, tokens=tokens, texts=texts, padding=padding)
    ]
    assert [length for batch in made for length in batch] == sorted(lengths, reverse=True)
    for batch in made:
        assert len(batch) <= texts
        assert len(batch) == 1 or len(batch) * batch[0] <= tokens
        assert padding is None or len(batch) * batch[0] - sum(batch) <= padding


def test_a_batch_ends_where_its_padding_would_be_too_much():
    lengths = [10, 100, 90, 9, 70]
    assert [[*batch] for batch in batches(lengths, tokens=1000, texts=9, padding=35)] == [[1, 2], [4], [0, 3]]
    assert [[*batch] for batch in batches(lengths, tokens=1000, texts=9, padding=40)] == [[1, 2, 4], [0, 3]]
    assert [*map(len, batches(lengths, tokens=1000, texts=9))] == [5]
    assert np.concatenate([*batches([], tokens=9, texts=9), [7]]).tolist() == [7]
