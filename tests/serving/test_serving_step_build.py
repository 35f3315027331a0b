"""A plan as arrays: what a loop over its tokens would write."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from job_wrappers.serving.kv.block_pool import BlockPool
from job_wrappers.serving.kv.block_table import BlockTable
from job_wrappers.serving.scheduling.build_step import build_step
from job_wrappers.serving.scheduling.sequence import Sequence
from job_wrappers.serving.scheduling.step_plan import ScheduledSequence, StepPlan
from tests.serving.paged_memory import request_of

SIZE = 4


def scheduled(pool: BlockPool, computed: int, new_tokens: int, beyond: int) -> ScheduledSequence:
    length = computed + new_tokens + beyond
    sequence = Sequence(request_of("a", range(1, length + 1)), BlockTable(pool, SIZE), max_model_len=100)
    sequence.computed_tokens = computed
    sequence.table.reserve(0, computed + new_tokens)
    return ScheduledSequence(sequence, new_tokens, beyond == 0)


@given(
    ones=st.lists(st.tuples(st.integers(0, 30), st.just(1), st.integers(0, 1)), max_size=5),
    chunks=st.lists(st.tuples(st.integers(0, 30), st.integers(2, 20), st.integers(0, 3)), max_size=4),
)
def test_every_token_has_its_place_and_position(
    ones: list[tuple[int, int, int]], chunks: list[tuple[int, int, int]]
) -> None:
    pool = BlockPool(200)
    for _ in range(7):
        pool.take()
    plan = StepPlan(tuple(scheduled(pool, *sizes) for sizes in [*ones, *chunks]))
    step = build_step(plan, block_tokens=SIZE)
    rows, logit_rows = [], []
    for i, entry in enumerate(plan.scheduled):
        sequence = entry.sequence
        assert step.query_starts[i] == len(rows)
        for position in range(sequence.computed_tokens, sequence.computed_tokens + entry.new_tokens):
            slot = sequence.table.blocks[position // SIZE] * SIZE + position % SIZE
            rows.append((sequence.token_ids[position], position, slot))
        logit_rows += [len(rows) - 1] if entry.samples else []
        held = len(sequence.table.blocks)
        assert step.block_tables[i, :held].tolist() == list(sequence.table.blocks)
        assert not step.block_tables[i, held:].any()
    built = np.stack([step.token_ids, step.positions, step.slots], axis=1)
    assert [tuple(row) for row in built.tolist()] == rows
    assert step.logit_rows.tolist() == logit_rows
    assert step.query_starts[-1] == len(rows)
    assert step.context_lengths.tolist() == [e.sequence.computed_tokens + e.new_tokens for e in plan.scheduled]
    assert step.decodes == len(ones)


def test_choices_share_one_row_of_logits() -> None:
    pool = BlockPool(20)
    entry = scheduled(pool, 0, 6, 0)
    forks = tuple(scheduled(pool, 0, 6, 0).sequence for _ in range(2))
    plan = StepPlan((entry._replace(forks=forks),))
    assert plan.samplers == (entry.sequence, *forks)
    assert build_step(plan, block_tokens=SIZE).logit_rows.tolist() == [5]


def test_moves_are_pairs_also_when_there_are_none() -> None:
    plan = StepPlan((scheduled(BlockPool(20), 0, 6, 0),), swap_out=((1, 2), (3, 4)))
    moves = build_step(plan, block_tokens=SIZE).moves
    assert moves.swap_out.tolist() == [[1, 2], [3, 4]]
    assert moves.swap_in.shape == moves.copies.shape == (0, 2)
