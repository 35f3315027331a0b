"""Attention over a paged cache, and writing to it, on a GPU. With TRITON_INTERPRET=1 in the environment before Triton
is first imported it runs on a CPU, slowly.

A program takes a tile of rows (new tokens x query heads of one kv head) of one sequence over a part of its context.
"""
# Triton would look annotations other than its own up at compile time.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PART = 256
"""Contexts of single tokens are cut here whatever else is in the batch, so that a result does not depend on it."""

NUM_STAGES = 2
_LARGE = 256
"""Numbers per head from which on fewer tokens fit beside them."""


def tile_rows(most: int) -> int:
    """Tensor cores take 16 rows at least; 64 of the largest heads still fit into registers."""
    return max(16, int(triton.next_power_of_2(min(most, 64))))


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    result: Tensor,
    *,
    tiles: Tensor,
    starts: Tensor,
    lengths: Tensor,
    tables: Tensor,
    longest: int,
    single: bool,
    rows: int,
    scale: float,
    values_in_keys: bool,
) -> None:
    """queries [T, heads, key size] -> result [T, heads, value size]; only rows that `tiles` [n, 2] (sequence, first of
    its rows) name. single: each sequence has one new token, in the row of its own number."""
    heads, kv_heads = queries.shape[1], keys.shape[1]
    key_size, value_size = keys.shape[3], values.shape[3]
    parts = triton.cdiv(longest, PART) if single else 1
    cut = (len(starts) - 1, heads, parts) if parts > 1 else (0,)
    partial = torch.empty(*cut, value_size if parts > 1 else 0, dtype=torch.float32, device=queries.device)
    tops, sums = (torch.empty(*cut, dtype=torch.float32, device=queries.device) for _ in range(2))
    large = max(key_size, value_size) >= _LARGE
    _attend[(len(tiles), kv_heads, parts)](
        queries,
        keys,
        values,
        result,
        partial,
        tops,
        sums,
        tiles,
        starts,
        lengths,
        tables,
        scale * 1.4426950408889634,
        *queries.stride()[:2],
        *keys.stride()[:3],
        *values.stride()[:3],
        *result.stride()[:2],
        tables.stride(0),
        heads,
        group=heads // kv_heads,
        key_size=key_size,
        value_size=value_size,
        key_pad=triton.next_power_of_2(key_size - value_size if values_in_keys else key_size),
        value_pad=triton.next_power_of_2(value_size),
        block_tokens=keys.shape[2],
        rows=rows,
        tokens=32 if large else 64,
        part=PART if parts > 1 else 0,
        values_in_keys=values_in_keys,
        num_warps=8 if large else 4,
        num_stages=NUM_STAGES,
    )
    if parts > 1:
        _merge[(len(starts) - 1, heads)](
            partial,
            tops,
            sums,
            result,
            *result.stride()[:2],
            heads,
            parts,
            value_size=value_size,
            value_pad=triton.next_power_of_2(value_size),
            part_pad=triton.next_power_of_2(parts),
        )


def write(
    keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor | None, slots: Tensor, *, block_tokens: int
) -> None:
    """keys, values: the cache's. new_values None: they lie in the keys."""
    if len(slots) == 0:
        return
    source = new_keys if new_values is None else new_values
    _write[(len(slots), keys.shape[1])](
        keys,
        values,
        new_keys,
        source,
        slots,
        *keys.stride()[:3],
        *values.stride()[:3],
        *new_keys.stride(),
        *source.stride(),
        key_size=keys.shape[3],
        value_size=0 if new_values is None else values.shape[3],
        pad=triton.next_power_of_2(max(keys.shape[3], values.shape[3])),
        block_tokens=block_tokens,
    )


@triton.jit
def _attend(
    queries,
    keys,
    values,
    result,
    partial,
    tops,
    sums,
    tiles,
    starts,
    lengths,
    tables,
    scale,
    query_row,
    query_head,
    key_block,
    key_head,
    key_token,
    value_block,
    value_head,
    value_token,
    result_row,
    result_head,
    table_row,
    heads,
    group: tl.constexpr,
    key_size: tl.constexpr,
    value_size: tl.constexpr,
    key_pad: tl.constexpr,
    value_pad: tl.constexpr,
    block_tokens: tl.constexpr,
    rows: tl.constexpr,
    tokens: tl.constexpr,
    part: tl.constexpr,
    values_in_keys: tl.constexpr,
):
    sequence, first = tl.load(tiles + 2 * tl.program_id(0)), tl.load(tiles + 2 * tl.program_id(0) + 1)
    kv_head = tl.program_id(1)
    start, length = tl.load(starts + sequence), tl.load(lengths + sequence)
    new = tl.load(starts + sequence + 1) - start
    row = first + tl.arange(0, rows)
    token, head = row // group, kv_head * group + row % group
    valid, sees = token < new, length - new + token + 1
    end = tl.minimum(length, length - new + (first + rows - 1) // group + 1)
    begin = tl.program_id(2) * part
    if part > 0:
        end = tl.minimum(end, begin + part)

    # With latent attention a key is the value and a rest of its own; the value is read once for both.
    rest_first: tl.constexpr = value_size if values_in_keys else 0
    k, v = rest_first + tl.arange(0, key_pad), tl.arange(0, value_pad)
    of_query = queries + (start + token) * query_row + head * query_head
    query = tl.load(of_query[:, None] + k[None, :], mask=valid[:, None] & (k < key_size)[None, :], other=0.0)
    if values_in_keys:
        latent = tl.load(of_query[:, None] + v[None, :], mask=valid[:, None] & (v < value_size)[None, :], other=0.0)
    total = tl.zeros((rows, value_pad), dtype=tl.float32)
    top, weights = tl.full((rows,), float("-inf"), dtype=tl.float32), tl.zeros((rows,), dtype=tl.float32)
    for at in tl.range(begin, end, tokens):
        place = at + tl.arange(0, tokens)
        inside = place < end
        block = tl.load(tables + sequence * table_row + place // block_tokens, mask=inside, other=0)
        offset = place % block_tokens
        of_key = keys + block * key_block + kv_head * key_head + offset * key_token
        of_value = values + block * value_block + kv_head * value_head + offset * value_token
        key = tl.load(of_key[None, :] + k[:, None], mask=inside[None, :] & (k < key_size)[:, None], other=0.0)
        value = tl.load(of_value[:, None] + v[None, :], mask=inside[:, None] & (v < value_size)[None, :], other=0.0)
        score = tl.dot(query, key.to(query.dtype), input_precision="ieee")
        if values_in_keys:
            score += tl.dot(latent, tl.trans(value).to(query.dtype), input_precision="ieee")
        score = tl.where(inside[None, :] & (place[None, :] < sees[:, None]), score * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(score, axis=1))
        weight, shrink = tl.exp2(score - higher[:, None]), tl.exp2(top - higher)
        weights = weights * shrink + tl.sum(weight, axis=1)
        total = total * shrink[:, None]
        total += tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        top = higher

    mask = valid[:, None] & (v < value_size)[None, :]
    if part > 0:
        where = ((start + token) * heads + head) * tl.num_programs(2) + tl.program_id(2)
        tl.store(tops + where, top, mask=valid)
        tl.store(sums + where, weights, mask=valid)
        tl.store(partial + where[:, None] * value_size + v[None, :], total, mask=mask)
    else:
        to = result + (start + token) * result_row + head * result_head
        tl.store(to[:, None] + v[None, :], (total / weights[:, None]).to(result.dtype.element_ty), mask=mask)


@triton.jit
def _merge(
    partial,
    tops,
    sums,
    result,
    result_row,
    result_head,
    heads,
    parts,
    value_size: tl.constexpr,
    value_pad: tl.constexpr,
    part_pad: tl.constexpr,
):
    """Parts of one row and head; those past a short context's end have no weight, and their numbers are not read."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    first, part, v = (row * heads + head) * parts, tl.arange(0, part_pad), tl.arange(0, value_pad)
    top = tl.load(tops + first + part, mask=part < parts, other=float("-inf"))
    weight = tl.exp2(top - tl.max(top, axis=0))
    total = tl.sum(weight * tl.load(sums + first + part, mask=part < parts, other=0.0), axis=0)
    mask = (weight > 0)[:, None] & (v < value_size)[None, :]
    numbers = tl.load(partial + (first + part)[:, None] * value_size + v[None, :], mask=mask, other=0.0)
    mixed = tl.sum(weight[:, None] * numbers, axis=0) / total
    to = result + row * result_row + head * result_head
    tl.store(to + v, mixed.to(result.dtype.element_ty), mask=v < value_size)


@triton.jit
def _write(
    keys,
    values,
    new_keys,
    new_values,
    slots,
    key_block,
    key_head,
    key_token,
    value_block,
    value_head,
    value_token,
    new_key_row,
    new_key_head,
    new_key_number,
    new_value_row,
    new_value_head,
    new_value_number,
    key_size: tl.constexpr,
    value_size: tl.constexpr,
    pad: tl.constexpr,
    block_tokens: tl.constexpr,
):
    row, head, number = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, pad)
    slot = tl.load(slots + row)
    block, offset = slot // block_tokens, slot % block_tokens
    of_key = new_keys + row * new_key_row + head * new_key_head + number * new_key_number
    key = tl.load(of_key, mask=number < key_size)
    to_key = keys + block * key_block + head * key_head + offset * key_token
    tl.store(to_key + number, key.to(keys.dtype.element_ty), mask=number < key_size)
    if value_size > 0:
        of_value = new_values + row * new_value_row + head * new_value_head + number * new_value_number
        value = tl.load(of_value, mask=number < value_size)
        to_value = values + block * value_block + head * value_head + offset * value_token
        tl.store(to_value + number, value.to(values.dtype.element_ty), mask=number < value_size)
