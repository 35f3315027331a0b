"""One data rank's part of a batch, and its micro-batches as tensors: what an engine's step takes from its iterator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from training.data.dataset import Ids
from training.data.order import rank_places
from training.data.text import RunText


def step_ids(text: RunText, consumed: int, *, global_sequences: int, data_rank: int, data_ranks: int) -> Ids:
    """[sequences, sequence_length + 1]: what this data rank reads in the step after `consumed` sequences of the run.

    Raise StorageError for a damaged dataset.
    """
    places = rank_places(consumed, global_sequences=global_sequences, data_rank=data_rank, data_ranks=data_ranks)
    return np.stack([text.trained.sequence(text.order.at(place)) for place in places])


def evaluation_ids(text: RunText, *, data_rank: int, data_ranks: int) -> Ids:
    """[sequences, sequence_length + 1]: this data rank's part of the held-out sequences."""
    assert text.held_out is not None, "asked only where the config has held-out text"
    share = len(text.evaluated) // data_ranks
    numbers = text.evaluated[data_rank * share : (data_rank + 1) * share]
    return np.stack([text.held_out.sequence(number) for number in numbers])


def micro_batches(ids: Ids, micro_sequences: int) -> Iterator[tuple[Any, Any]]:
    """Tokens and labels, int64 [micro_sequences, sequence_length]; label i is token i + 1."""
    import torch

    for begin in range(0, len(ids), micro_sequences):
        cut = torch.from_numpy(ids[begin : begin + micro_sequences])
        yield cut[:, :-1].contiguous(), cut[:, 1:].contiguous()
