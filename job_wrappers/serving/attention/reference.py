"""Attention that anybody can check: gather each sequence's keys and values, then PyTorch's own. Any device."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from job_wrappers.serving.kv.store import PagedLayer
from job_wrappers.serving.steps.step_input import StepInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Sequences of the step that bring the same number of new tokens, in neighbouring rows."""

    first_row: int
    sequences: int
    new_tokens: int
    blocks: Tensor
    """[sequences * blocks of the longest]"""

    visible: Tensor
    """[sequences, 1, new tokens, tokens in those blocks]"""


class Plan:
    """Cut into pieces by the first layer: only the cache knows how long blocks are."""

    def __init__(self, step: StepInput) -> None:
        self._step = step
        self._pieces: list[Piece] | None = None

    def pieces(self, cache: PagedLayer) -> list[Piece]:
        """All decodes are one piece, padded to the longest; every prompt, or chunk of one, is a piece of its own."""
        if self._pieces is None:
            sequences = len(self._step.context_lengths)
            borders = [0, *range(self._step.decodes or 1, sequences + 1)] if sequences else []
            self._pieces = [_piece(self._step, *pair, cache) for pair in pairwise(borders)]
        return self._pieces


class ReferenceAttention:
    def plan(self, step: StepInput) -> Plan:
        return Plan(step)

    def attend(self, queries: Tensor, cache: Any, plan: Any, *, scale: float) -> Tensor:
        result = queries.new_empty(*queries.shape[:2], cache.values.shape[-1])
        for piece in plan.pieces(cache):
            rows = slice(piece.first_row, piece.first_row + piece.sequences * piece.new_tokens)
            result[rows] = _attend_piece(queries[rows], cache, piece, scale)
        return result


def _piece(step: StepInput, first: int, last: int, cache: PagedLayer) -> Piece:
    starts, lengths = step.query_starts[first : last + 1], step.context_lengths[first:last]
    new_tokens = int(starts[1] - starts[0])
    blocks = -(-int(lengths.max()) // cache.block_tokens)
    last_seen = lengths[:, None] - new_tokens + np.arange(new_tokens)
    visible = np.arange(blocks * cache.block_tokens) <= last_seen[:, :, None]
    return Piece(
        first_row=int(starts[0]),
        sequences=last - first,
        new_tokens=new_tokens,
        blocks=torch.from_numpy(step.block_tables[first:last, :blocks].reshape(-1)).to(cache.keys.device),
        visible=torch.from_numpy(visible[:, None]).to(cache.keys.device),
    )


def _attend_piece(queries: Tensor, cache: PagedLayer, piece: Piece, scale: float) -> Tensor:
    """[rows, heads, key size] -> [rows, heads, value size]"""
    by_sequence = queries.unflatten(0, (piece.sequences, piece.new_tokens)).transpose(1, 2)
    keys, values = (_gather(pool, piece).to(queries.dtype) for pool in (cache.keys, cache.values))
    result = scaled_dot_product_attention(
        by_sequence, keys, values, attn_mask=piece.visible, scale=scale, enable_gqa=keys.shape[1] != queries.shape[1]
    )
    return result.transpose(1, 2).flatten(0, 1)


def _gather(pool: Tensor, piece: Piece) -> Tensor:
    """[sequences, kv heads, tokens, number]. What lies past a sequence's end is somebody's old numbers: a weight of 0
    would not hide a NaN among them."""
    found = pool[piece.blocks].unflatten(0, (piece.sequences, -1)).transpose(1, 2).flatten(2, 3)
    return found.masked_fill(~piece.visible[:, :, -1, :, None], 0)
