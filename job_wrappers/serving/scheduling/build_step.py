"""From the scheduler's plan to the arrays of `StepInput`. Every iteration: Python touches sequences, not tokens."""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np

from job_wrappers.serving.scheduling.step_plan import Move, StepPlan
from job_wrappers.serving.steps.step_input import BlockMoves, Ints, StepInput


def build_step(plan: StepPlan, *, block_tokens: int) -> StepInput:
    entries = plan.scheduled
    counts = np.array([entry.new_tokens for entry in entries], dtype=np.int64)
    starts = np.array([entry.sequence.computed_tokens for entry in entries], dtype=np.int64)
    query_starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    owner = np.repeat(np.arange(len(entries)), counts)
    positions = np.arange(query_starts[-1]) - query_starts[owner] + starts[owner]
    tables = _tables([entry.sequence.table.blocks for entry in entries])
    slots = tables[owner, positions // block_tokens] * block_tokens + positions % block_tokens
    token_ids: list[int] = []
    for entry in entries:
        first = entry.sequence.computed_tokens
        token_ids += entry.sequence.token_ids[first : first + entry.new_tokens]
    samples = np.array([entry.samples for entry in entries], dtype=np.bool_)
    return StepInput(
        token_ids=np.array(token_ids, dtype=np.int64),
        positions=positions,
        slots=slots,
        query_starts=query_starts,
        context_lengths=starts + counts,
        block_tables=tables,
        decodes=int(np.count_nonzero(np.cumprod(counts == 1))),
        logit_rows=query_starts[1:][samples] - 1,
        moves=BlockMoves(swap_out=_pairs(plan.swap_out), swap_in=_pairs(plan.swap_in), copies=_pairs(plan.copies)),
    )


def _tables(blocks: Items[Items[int]]) -> Ints:
    most = max((len(row) for row in blocks), default=0)
    tables = np.zeros((len(blocks), most), dtype=np.int64)
    for row, held in zip(tables, blocks, strict=True):
        row[: len(held)] = held
    return tables


def _pairs(moves: Items[Move]) -> Ints:
    return np.array(moves, dtype=np.int64).reshape(-1, 2)
