"""Where ranks sit, and the iteration that measures a model."""

from __future__ import annotations

import numpy as np
import pytest

from job_wrappers.serving.errors import ConfigError
from job_wrappers.serving.ranks.dummy import dummy_step
from job_wrappers.serving.ranks.seat import Seat


def test_neighbouring_ranks_share_a_layer() -> None:
    seats = [Seat(rank=rank, tensor=2, pipeline=3) for rank in range(6)]
    assert [(seat.pp_rank, seat.tp_rank) for seat in seats] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [seat.is_first_stage for seat in seats] == [True, True, False, False, False, False]
    assert [seat.is_last_stage for seat in seats] == [False, False, False, False, True, True]
    assert (seats[2].previous, seats[2].next, seats[0].logits_rank) == (0, 4, 4)


def test_one_rank_has_its_own_logits() -> None:
    assert (Seat().is_first_stage, Seat().is_last_stage, Seat().logits_rank) == (True, True, 0)


def test_a_rank_too_many_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank = 2"):
        Seat(rank=2, tensor=2)


@pytest.mark.parametrize("sequences", [1, 3, 7, 40])
def test_a_dummy_step_is_a_valid_step(sequences: int) -> None:
    step = dummy_step(tokens=40, sequences=sequences, context_tokens=100, block_tokens=16)
    new_tokens = np.diff(step.query_starts)
    assert new_tokens.sum() == len(step.token_ids) == len(step.positions) == len(step.slots) == 40
    assert len(new_tokens) == len(step.context_lengths) == len(step.block_tables) == sequences
    assert step.decodes == (sequences if sequences == 40 else 0)
    assert (step.positions[step.logit_rows] == step.context_lengths - 1).all()
    assert (step.slots < 16).all()
    assert step.block_tables.shape[1] * 16 >= step.context_lengths.max()
