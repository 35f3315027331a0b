"""The memory of the cache: one pool of blocks for all layers on the device, one in host memory to swap to.

A block lies in one piece, `[layer][keys, then values][kv head][token][number]`, so that swapping it is one copy. All of
it is allocated, and touched, when the store is made; nothing is later.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from job_wrappers.serving.kernels import paged_cpu, paged_gpu
from job_wrappers.serving.kv.layout import KvLayout
from job_wrappers.serving.kv.pool_memory import allocate
from job_wrappers.serving.steps.step_input import BlockMoves, Ints


class PagedLayer:
    """One layer's keys [blocks, kv heads, block tokens, key size], and values likewise; views of the pool."""

    __slots__ = ("_gpu", "block_tokens", "keys", "native", "values", "values_in_keys")

    def __init__(self, keys: Tensor, values: Tensor, *, values_in_keys: bool) -> None:
        self.keys = keys
        self.values = values
        self.values_in_keys = values_in_keys
        self.block_tokens = keys.shape[2]
        self.native = paged_cpu.describe(keys, values)
        self._gpu = paged_gpu.gpu_kernels(keys.device) if keys.device.type == "cuda" else None

    def write(self, keys: Tensor, values: Tensor | None, slots: Tensor) -> None:
        values = None if self.values_in_keys else values
        if self._gpu is not None:
            self._gpu.write(self.keys, self.values, keys, values, slots, block_tokens=self.block_tokens)
            return
        keys = keys.to(self.keys.dtype)
        values = None if values is None else values.to(self.keys.dtype)
        if self.native is not None:
            paged_cpu.write(self.native, keys, values, slots)
            return
        blocks, offsets = slots // self.block_tokens, slots % self.block_tokens
        self.keys[blocks, :, offsets] = keys
        if values is not None:
            self.values[blocks, :, offsets] = values


class KvStore:
    """`layout.bytes_per_number` is that of `dtype`."""

    def __init__(
        self,
        layout: KvLayout,
        *,
        device_blocks: int,
        host_blocks: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        self.layout = layout
        self.device = torch.device(device)
        numbers = layout.block_bytes // layout.bytes_per_number
        self._blocks = allocate(device_blocks, numbers, dtype, self.device)
        self._host = allocate(host_blocks, numbers, dtype, torch.device("cpu"), pinned=self.device.type == "cuda")
        self._layers = [_layer(self._blocks, layout, index) for index in range(layout.layers)]

    @property
    def device_blocks(self) -> int:
        return len(self._blocks)

    @property
    def host_blocks(self) -> int:
        return len(self._host)

    def layer(self, index: int) -> PagedLayer:
        return self._layers[index]

    def layers(self) -> list[PagedLayer]:
        return self._layers

    def move(self, moves: BlockMoves) -> None:
        """On a GPU only queued, in front of whatever is queued later on the same stream."""
        _copy_blocks(self._blocks, self._host, moves.swap_out)
        _copy_blocks(self._host, self._blocks, moves.swap_in)
        _copy_blocks(self._blocks, self._blocks, moves.copies)

    def measure_copy_bytes_per_s(self) -> float | None:
        """How fast blocks go to the host pool and back, the slower way of the two. Only before the first request:
        it overwrites host blocks. None without a host pool."""
        count = min(self.host_blocks, self.device_blocks, 128)
        if count == 0:
            return None
        # Every second block, so that each is a copy of its own, as in a pool in use.
        pairs = np.repeat(np.arange(0, count, 2), 2).reshape(-1, 2)
        slowest_s = 0.0
        for source, target in ((self._blocks, self._host), (self._host, self._blocks)):
            _copy_blocks(source, target, pairs)
            self._wait()
            began_s = time.perf_counter()
            _copy_blocks(source, target, pairs)
            self._wait()
            slowest_s = max(slowest_s, time.perf_counter() - began_s)
        return len(pairs) * self.layout.block_bytes / slowest_s

    def free(self) -> None:
        """Gives all memory back; the store is of no use afterwards."""
        self._layers = []
        self._blocks = self._host = torch.empty(0, 0)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _layer(blocks: Tensor, layout: KvLayout, index: int) -> PagedLayer:
    heads, tokens = layout.kv_heads, layout.block_tokens
    key_numbers = heads * tokens * layout.key_size
    of_layer = blocks.view(len(blocks), layout.layers, -1)[:, index]
    keys = of_layer[:, :key_numbers].view(-1, heads, tokens, layout.key_size)
    if layout.values_in_keys:
        return PagedLayer(keys, keys[..., : layout.value_size], values_in_keys=True)
    values = of_layer[:, key_numbers:].view(-1, heads, tokens, layout.value_size)
    return PagedLayer(keys, values, values_in_keys=False)


def _copy_blocks(source: Tensor, target: Tensor, pairs: Ints) -> None:
    """In order: a block may be read by one pair and written by the next."""
    for first, to, length in _runs(pairs.tolist(), longest=1 if source is target else len(pairs)):
        target[to : to + length].copy_(source[first : first + length], non_blocking=True)


def _runs(pairs: list[list[int]], *, longest: int) -> list[tuple[int, int, int]]:
    """(from, to, length): neighbours that move together go as one copy."""
    runs: list[tuple[int, int, int]] = []
    for source, target in pairs:
        first, to, length = runs[-1] if runs else (-1, -1, 0)
        if 0 < length < longest and (source, target) == (first + length, to + length):
            runs[-1] = (first, to, length + 1)
        else:
            runs.append((source, target, 1))
    return runs
