"""Attention with our Triton kernel, where the blocks lie: decodes cut over their context, prompts by tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from job_wrappers.serving.kernels import paged_triton
from job_wrappers.serving.kv.store import PagedLayer
from job_wrappers.serving.steps.step_input import StepInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Sequences that one launch of the kernel takes."""

    tiles: Tensor
    """[n, 2]: sequence, first of its rows (new tokens x query heads of a kv head)"""

    rows: int
    longest: int
    starts: Tensor
    lengths: Tensor
    single: bool


class GpuPlan:
    """The step's arrays on the device; launches are listed by the first layer: only it knows how many heads share."""

    def __init__(self, step: StepInput, device: torch.device) -> None:
        self._step = step
        self._device = device
        self.tables = self._on_device(step.block_tables)
        self._starts, self._lengths = self._on_device(step.query_starts), self._on_device(step.context_lengths)
        self._launches: dict[int, list[Launch]] = {}

    def launches(self, group: int) -> list[Launch]:
        if group not in self._launches:
            decodes, sequences = self._step.decodes, len(self._step.context_lengths)
            pairs = ((0, decodes, True), (decodes, sequences, False))
            self._launches[group] = [self._launch(*pair, group) for pair in pairs if pair[0] < pair[1]]
        return self._launches[group]

    def _launch(self, first: int, last: int, single: bool, group: int) -> Launch:
        work = np.diff(self._step.query_starts)[first:last] * group
        rows = paged_triton.tile_rows(int(work.max()))
        counts = -(-work // rows)
        numbers = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        tiles = np.stack([np.repeat(np.arange(first, last), counts), numbers * rows], axis=1)
        return Launch(
            tiles=self._on_device(tiles),
            rows=rows,
            longest=int(self._step.context_lengths[first:last].max()),
            starts=self._starts[: last + 1],
            lengths=self._lengths,
            single=single,
        )

    def _on_device(self, numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(numbers).to(self._device, non_blocking=True)


class GpuAttention:
    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def plan(self, step: StepInput) -> GpuPlan:
        return GpuPlan(step, self._device)

    def attend(self, queries: Tensor, cache: PagedLayer, plan: GpuPlan, *, scale: float) -> Tensor:
        queries = queries if queries.stride(2) == 1 else queries.contiguous()
        result = queries.new_empty(*queries.shape[:2], cache.values.shape[3])
        for launch in plan.launches(queries.shape[1] // cache.keys.shape[1]):
            paged_triton.attend(
                queries,
                cache.keys,
                cache.values,
                result,
                tiles=launch.tiles,
                starts=launch.starts,
                lengths=launch.lengths,
                tables=plan.tables,
                longest=launch.longest,
                single=launch.single,
                rows=launch.rows,
                scale=scale,
                values_in_keys=cache.values_in_keys,
            )
        return result
