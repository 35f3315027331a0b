"""Ranks as threads of one process, for what ranks agree on between steps: no process group, no gloo."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from training.checkpoint.agreement import Agreement

T = TypeVar("T")
DEADLOCK_S = 60.0


class _Table:
    def __init__(self, world_size: int) -> None:
        self.rows: list[Any] = [None] * world_size
        self.barrier = threading.Barrier(world_size, timeout=DEADLOCK_S)


class ThreadedAgreement:
    def __init__(self, rank: int, table: _Table) -> None:
        self.rank, self.world_size, self._table = rank, len(table.rows), table

    def highest(self, values: Sequence[int]) -> list[int]:
        return [max(column) for column in zip(*self._exchange([int(value) for value in values]), strict=True)]

    def total(self, values: Sequence[float]) -> list[float]:
        return [sum(column) for column in zip(*self._exchange(list(values)), strict=True)]

    def gather(self, message: bytes) -> list[bytes]:
        return self._exchange(message)

    def _exchange(self, mine: Any) -> list[Any]:
        self._table.rows[self.rank] = mine
        self._table.barrier.wait()
        rows = list(self._table.rows)
        self._table.barrier.wait()
        return rows


def run_threads(function: Callable[[Agreement], T], world_size: int) -> list[T]:
    """`function` on each rank; its results by rank. The first rank's error is raised; the others' barriers break."""
    table = _Table(world_size)

    def call(rank: int) -> T:
        try:
            return function(ThreadedAgreement(rank, table))
        except BaseException:
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        futures = [pool.submit(call, rank) for rank in range(world_size)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, threading.BrokenBarrierError):
                raise error
        return [future.result() for future in futures]
