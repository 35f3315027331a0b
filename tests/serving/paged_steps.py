"""Steps over a paged cache with scattered blocks, and attention as a loop in float64 to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from job_wrappers.serving.kv.layout import KvLayout
from job_wrappers.serving.kv.store import KvStore
from job_wrappers.serving.steps.step_input import BlockMoves, StepInput

NO_MOVES = np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True)
class Shape:
    heads: int = 4
    kv_heads: int = 2
    key_size: int = 32
    value_size: int = 32
    values_in_keys: bool = False
    block_tokens: int = 16


def moves(swap_out=(), swap_in=(), copies=()) -> BlockMoves:
    pairs = (np.array(each, dtype=np.int64).reshape(-1, 2) for each in (swap_out, swap_in, copies))
    return BlockMoves(**dict(zip(("swap_out", "swap_in", "copies"), pairs, strict=True)))


def make_step(lengths, *, decodes: int | None = None, block_tokens: int = 16, spare_blocks: int = 3, seed: int = 0):
    """(step, blocks the pool needs); lengths: (tokens before, new tokens) of each sequence, decodes first."""
    lengths = np.array(lengths, dtype=np.int64).reshape(-1, 2)
    context, new = lengths.sum(1), lengths[:, 1]
    counts = -(-context // block_tokens)
    pool = int(counts.sum()) + spare_blocks
    numbers = np.random.default_rng(seed).permutation(pool)
    tables = np.zeros((len(lengths), counts.max(initial=0)), dtype=np.int64)
    for row, (count, end) in enumerate(zip(counts, counts.cumsum(), strict=True)):
        tables[row, :count] = numbers[end - count : end]
    starts = np.concatenate([[0], new.cumsum()]).astype(np.int64)
    positions = np.concatenate([np.arange(a, a + b) for a, b in lengths] or [NO_MOVES[:, 0]]).astype(np.int64)
    owners = np.repeat(np.arange(len(lengths)), new)
    slots = tables[owners, positions // block_tokens] * block_tokens + positions % block_tokens
    step = StepInput(
        token_ids=np.zeros(len(positions), dtype=np.int64),
        positions=positions,
        slots=slots,
        query_starts=starts,
        context_lengths=context,
        block_tables=tables,
        decodes=int(np.cumprod(new == 1).sum()) if decodes is None else decodes,
        logit_rows=starts[1:] - 1,
        moves=moves(),
    )
    return step, pool


def make_store(shape: Shape, blocks: int, dtype=torch.float32, *, layers: int = 2, host_blocks: int = 0) -> KvStore:
    layout = KvLayout(
        layers=layers,
        kv_heads=shape.kv_heads,
        key_size=shape.key_size,
        value_size=shape.value_size,
        values_in_keys=shape.values_in_keys,
        bytes_per_number=dtype.itemsize,
        block_tokens=shape.block_tokens,
    )
    return KvStore(layout, device_blocks=blocks, host_blocks=host_blocks, device="cpu", dtype=dtype)


def fill(layer, step: StepInput, shape: Shape, dtype=torch.float32, *, seed: int = 1) -> list:
    """Writes a whole context for each sequence; everything else in the pool is NaN. Returns (keys, values) of each."""
    random = torch.Generator().manual_seed(seed)
    layer.keys.fill_(float("nan"))
    layer.values.fill_(float("nan"))
    written = []
    for table, length in zip(step.block_tables, step.context_lengths.tolist(), strict=True):
        keys = torch.randn(length, shape.kv_heads, shape.key_size, generator=random).to(dtype)
        values = torch.randn(length, shape.kv_heads, shape.value_size, generator=random).to(dtype)
        places = np.arange(length)
        slots = table[places // shape.block_tokens] * shape.block_tokens + places % shape.block_tokens
        layer.write(keys, None if shape.values_in_keys else values, torch.from_numpy(slots))
        written.append((keys, keys[..., : shape.value_size] if shape.values_in_keys else values))
    return written


def naive(queries, written, step: StepInput, *, scale: float):
    """[T, heads, value size] in float64, one query at a time."""
    result = []
    for index, (keys, values) in enumerate(written):
        first, last = step.query_starts[index : index + 2].tolist()
        group = queries.shape[1] // keys.shape[1]
        keys, values = (each.double().repeat_interleave(group, dim=1) for each in (keys, values))
        for row in range(first, last):
            seen = int(step.context_lengths[index]) - (last - row) + 1
            scores = torch.einsum("hd,thd->ht", queries[row].double(), keys[:seen]) * scale
            result.append(torch.einsum("ht,thd->hd", scores.softmax(-1), values[:seen]))
    return torch.stack(result) if result else queries.new_zeros(0, queries.shape[1], 1)
