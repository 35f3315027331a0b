"""One iteration as every rank receives it: flat arrays, no objects of the scheduler. Pure (numpy)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockMoves:
    """Pairs (from, to), shape [moves, 2], done in this order before any token is computed. Host blocks have numbers
    of their own.

    A device block freed by `swap_out` or named by nobody any more may be the target of a later move of the same step.
    """

    swap_out: Ints
    """device -> host"""

    swap_in: Ints
    """host -> device"""

    copies: Ints
    """device -> device: a shared block about to be written (copy on write)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """T new tokens of B sequences. Sequences with one new token (decode) come first, so the first `decodes` rows of
    each array are they; then prompts or chunks of prompts."""

    token_ids: Ints
    """[T]"""

    positions: Ints
    """[T] of each token in its sequence, from 0."""

    slots: Ints
    """[T] where the token's keys and values go: block * block_tokens + offset."""

    query_starts: Ints
    """[B + 1] rows of sequence i: query_starts[i] .. query_starts[i + 1]."""

    context_lengths: Ints
    """[B] tokens in the cache after this step, the new ones included."""

    block_tables: Ints
    """[B, most blocks of any], padded with 0."""

    decodes: int
    logit_rows: Ints
    """[S] rows among the T whose logits are needed: the last token of each sequence that samples."""

    moves: BlockMoves
