"""Decoders without engine or scheduler, whole or cut over ranks that are threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from job_wrappers.serving.attention.interface import PagedAttention
from job_wrappers.serving.attention.reference import ReferenceAttention
from job_wrappers.serving.kv.store import KvStore
from job_wrappers.serving.models.build import kv_layout, load_decoder, read_config
from job_wrappers.serving.models.device_step import DeviceStep
from job_wrappers.serving.models.place import ModelPlace
from job_wrappers.serving.steps.step_input import BlockMoves, StepInput

BLOCK, BLOCKS = 16, 64
DEADLOCK_S = 60.0


class OneRank:
    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float32,
        attention: PagedAttention | None = None,
        place: ModelPlace = ModelPlace(),  # noqa: B008  frozen
    ) -> None:
        self.attention = attention or ReferenceAttention()
        self.config = read_config(folder)
        self.read_bytes = 0
        self.decoder, self.weight_bytes = load_decoder(
            folder,
            self.config,
            place=place,
            dtype=dtype,
            device=torch.device("cpu"),
            attention=self.attention,
            read_bytes=self._count,
        )
        layout = kv_layout(self.config, place, dtype_bytes=dtype.itemsize, block_tokens=BLOCK)
        self.store = KvStore(layout, device_blocks=BLOCKS, host_blocks=0, device="cpu", dtype=dtype)

    def _count(self, count: int) -> None:
        self.read_bytes += count

    def forward(self, step: StepInput, hidden: Any = None) -> Any:
        with torch.inference_mode():
            device_step = DeviceStep.of(step, self.attention, torch.device("cpu"))
            return self.decoder.forward(device_step, self.store.layers(), hidden)

    def logits(self, token_ids: Sequence[int], chunks: Sequence[int]) -> Any:
        """[tokens, vocabulary] of a sequence that is computed in chunks of these lengths."""
        return torch.cat([self.forward(step) for step in steps_of(token_ids, chunks)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadPlace(ModelPlace):
    """A share whose partners are threads; they meet in `table`, one list for each stage."""

    table: list[Any] = field(default_factory=list)
    barrier: threading.Barrier

    def _exchange(self, mine: Any) -> list[Any]:
        self.table[self.tp_rank] = mine
        self.barrier.wait()
        everyone = list(self.table)
        self.barrier.wait()
        return everyone

    def sum(self, summand: Any) -> Any:
        return torch.stack(self._exchange(summand.clone())).sum(0) if self.tp_size > 1 else summand

    def _parts(self, mine: Any) -> list[Any] | None:
        everyone = self._exchange(mine)
        return everyone if self.tp_rank == 0 else None


class ManyRanks:
    def __init__(self, folder: Path, *, tensor: int, pipeline: int) -> None:
        self.tensor, self.pipeline = tensor, pipeline
        self.ranks: list[list[OneRank]] = []
        for stage in range(pipeline):
            table, barrier = [None] * tensor, threading.Barrier(tensor, timeout=DEADLOCK_S)
            places = [
                ThreadPlace(tp_rank=rank, tp_size=tensor, pp_rank=stage, pp_size=pipeline, table=table, barrier=barrier)
                for rank in range(tensor)
            ]
            self.ranks.append([OneRank(folder, place=place) for place in places])

    def logits(self, token_ids: Sequence[int], chunks: Sequence[int]) -> Any:
        return torch.cat([self._run(step) for step in steps_of(token_ids, chunks)])

    def _run(self, step: StepInput) -> Any:
        results: list[Any] = [None] * self.tensor
        with ThreadPoolExecutor(self.tensor) as pool:
            for stage in self.ranks:
                waiting = [pool.submit(rank.forward, step, had) for rank, had in zip(stage, results, strict=True)]
                results = [each.result() for each in waiting]
        assert all(len(rest) == len(results[0]) and rest.shape[1] == 0 for rest in results[1:])
        return results[0]


def steps_of(token_ids: Sequence[int], chunks: Sequence[int]) -> list[StepInput]:
    """One sequence, a chunk at a time, with logits for each token."""
    table, steps, begin = np.arange(BLOCKS)[::-1], [], 0
    for length in chunks:
        steps.append(step_of([(token_ids, begin, begin + length, table)], rows=range(length)))
        begin += length
    return steps


def step_of(parts: Sequence[tuple[Sequence[int], int, int, Any]], *, rows: Sequence[int]) -> StepInput:
    """Of each sequence the tokens from one position to another; its blocks are those of a table."""
    positions = [np.arange(begin, end) for _, begin, end, _ in parts]
    slots = [table[p // BLOCK] * BLOCK + p % BLOCK for p, (*_, table) in zip(positions, parts, strict=True)]
    lengths = [end - begin for _, begin, end, _ in parts]
    none = np.zeros((0, 2), dtype=np.int64)
    return StepInput(
        token_ids=np.concatenate([np.array(tokens[begin:end], dtype=np.int64) for tokens, begin, end, _ in parts]),
        positions=np.concatenate(positions),
        slots=np.concatenate(slots),
        query_starts=np.concatenate([[0], np.cumsum(lengths)]),
        context_lengths=np.array([end for _, _, end, _ in parts]),
        block_tables=np.stack([table for *_, table in parts]),
        decodes=sum(length == 1 for length in lengths),
        logit_rows=np.array(rows, dtype=np.int64),
        moves=BlockMoves(swap_out=none, swap_in=none, copies=none),
    )
