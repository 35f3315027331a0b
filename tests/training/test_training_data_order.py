"""The order of the text: a permutation an epoch, and the same global batch whatever the plan."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.order import SequenceOrder, rank_places
from training.errors import ConfigError


@given(seed=st.integers(0, 2**70), sequences=st.integers(1, 700), epoch=st.integers(0, 10**9))
def test_every_epoch_reads_every_sequence_once(seed: int, sequences: int, epoch: int):
    order = SequenceOrder(seed, sequences)
    first = epoch * sequences
    assert sorted(order.at(place) for place in range(first, first + sequences)) == list(range(sequences))


def test_epochs_and_seeds_differ():
    n = 1000
    epochs = [tuple(SequenceOrder(seed, n).at(e * n + i) for i in range(n)) for seed in (0, 1) for e in (0, 1)]
    assert len(set(epochs)) == 4
    for one in epochs:
        for other in epochs:
            if one is not other:
                assert sum(a == b for a, b in zip(one, other, strict=True)) < 15  # 1 is expected by chance


def test_the_order_is_frozen():
    """A resumed run must go on in the order in which an older version of the program began."""
    first, second = ([SequenceOrder(7, 10).at(epoch * 10 + place) for place in range(10)] for epoch in (0, 1))
    assert first == [2, 4, 6, 1, 5, 3, 7, 0, 9, 8]
    assert second == [6, 3, 2, 0, 9, 8, 1, 7, 4, 5]


def test_sequences_come_evenly():
    """Chi-squared over where 64 sequences land in quarters of an epoch, over 200 epochs."""
    n, epochs = 64, 200
    order = SequenceOrder(3, n)
    counts = Counter((order.at(e * n + place), place // 16) for e in range(epochs) for place in range(n))
    expected = epochs / 4
    squared = sum(
        (counts[sequence, quarter] - expected) ** 2 / expected for sequence in range(n) for quarter in range(4)
    )
    degrees = n * 3
    assert abs(squared - degrees) < 5 * (2 * degrees) ** 0.5


def test_a_large_dataset_needs_no_table():
    order = SequenceOrder(0, 10**12 + 7)
    assert all(0 <= order.at(place) < order.sequences for place in (0, 1, 10**12, 3 * 10**13))


def test_an_empty_order_is_refused():
    with pytest.raises(ConfigError, match="sequences = 0: must be at least 1"):
        SequenceOrder(0, 0)


@given(consumed=st.integers(0, 10**6), data_ranks=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_all_data_ranks_together_read_the_global_batch(consumed: int, data_ranks: int):
    places = [
        place
        for rank in range(data_ranks)
        for place in rank_places(consumed, global_sequences=24, data_rank=rank, data_ranks=data_ranks)
    ]
    assert places == list(range(consumed, consumed + 24))
