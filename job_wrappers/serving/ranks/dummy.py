"""Iterations that mean nothing, as large as they may get. Every sequence lies in block 0: no cache is needed. Pure."""

from __future__ import annotations

import numpy as np

from job_wrappers.serving.steps.step_input import BlockMoves, StepInput


def dummy_step(*, tokens: int, sequences: int, context_tokens: int, block_tokens: int) -> StepInput:
    """`tokens` new ones dealt out over `sequences`, each of which has `context_tokens` (or its new ones, if more)."""
    new_tokens = np.full(sequences, tokens // sequences)
    new_tokens[: tokens % sequences] += 1
    new_tokens = np.sort(new_tokens[new_tokens > 0])
    contexts = np.maximum(new_tokens, context_tokens)
    ends = np.cumsum(new_tokens)
    positions = np.concatenate(
        [np.arange(context - new, context) for new, context in zip(new_tokens, contexts, strict=True)]
    )
    none = np.empty((0, 2), np.int64)
    return StepInput(
        token_ids=np.zeros(tokens, np.int64),
        positions=positions,
        slots=positions % block_tokens,
        query_starts=np.concatenate([[0], ends]),
        context_lengths=contexts,
        block_tables=np.zeros((len(new_tokens), -(-int(contexts.max()) // block_tokens)), np.int64),
        decodes=int((new_tokens == 1).sum()),
        logit_rows=ends - 1,
        moves=BlockMoves(swap_out=none, swap_in=none, copies=none),
    )
