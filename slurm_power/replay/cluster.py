"""Which GPUs are taken, and until when at the latest; one row per node, so that one question is put to all at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FREE = -math.inf


class Cluster:
    def __init__(self, node_gpus: Sequence[int]) -> None:
        self.node_gpus = np.array(node_gpus, dtype=np.intp)
        self.widest = int(self.node_gpus.max())
        self.free = self.node_gpus.copy()
        exists = np.arange(self.widest) < self.node_gpus[:, None]
        self._until_s = np.where(exists, _FREE, math.inf)
        self._flat_until_s = self._until_s.reshape(-1)  # a view

    @property
    def free_gpus(self) -> int:
        return int(self.free.sum())

    def shape_of(self, gpus: int, nodes: int | None) -> tuple[int, int] | None:
        """(nodes, GPUs on each); None: it can never run here.

        A job with more GPUs than a node has takes whole nodes, unless it names the number of its nodes; then its
        GPUs are spread evenly, rounded up.
        """
        if nodes is not None and math.ceil(gpus / nodes) <= self.widest:
            shape = (nodes, math.ceil(gpus / nodes))
        elif gpus <= self.widest:
            shape = (1, gpus)
        else:
            shape = (math.ceil(gpus / self.widest), self.widest)
        return shape if np.count_nonzero(self.node_gpus >= shape[1]) >= shape[0] else None

    def nodes_with_free(self) -> Ints:
        """Entry k: nodes with at least k free GPUs."""
        exactly = np.bincount(self.free, minlength=self.widest + 1)
        return np.asarray(exactly[::-1].cumsum()[::-1])

    def choose(self, nodes: int, gpus_each: int, *, avoid: Flags | None = None) -> Ints | None:
        """The fullest nodes that fit (so that large holes stay), of those in `avoid` as few as possible."""
        fitting = (self.free >= gpus_each).nonzero()[0]
        if fitting.size < nodes:
            return None
        cost = self.free[fitting]
        if avoid is not None:
            cost = cost + avoid[fitting] * (self.widest + 1)
        best = [int(cost.argmin())] if nodes == 1 else np.argsort(cost, kind="stable")[:nodes]
        return np.asarray(fitting[best])

    def take(self, chosen: Ints, gpus_each: int, *, until_s: float) -> Ints:
        """The GPUs taken, for `release`."""
        if chosen.size == 1:
            node = int(chosen[0])
            slots = np.flatnonzero(self._until_s[node] == _FREE)[:gpus_each]
            taken = slots + node * self.widest
        else:
            is_free = self._until_s[chosen] == _FREE
            wanted = is_free & (is_free.cumsum(axis=1) <= gpus_each)
            rows, slots = wanted.nonzero()
            taken = chosen[rows] * self.widest + slots
        self._flat_until_s[taken] = until_s
        self.free[chosen] -= gpus_each
        return taken

    def keep_until(self, taken: Ints, until_s: float) -> None:
        self._flat_until_s[taken] = until_s

    def release(self, taken: Ints) -> None:
        self._flat_until_s[taken] = _FREE
        np.add.at(self.free, taken // self.widest, 1)

    def earliest_s(self, nodes: int, gpus_each: int, *, now_s: float) -> float:
        """When so many nodes have so many free GPUs if every job runs to its limit; inf: nobody can say."""
        if gpus_each == self.widest:
            node_s = self._until_s.max(axis=1)
        else:
            node_s = np.partition(self._until_s, gpus_each - 1, axis=1)[:, gpus_each - 1]
        return max(now_s, float(np.partition(node_s, nodes - 1)[nodes - 1]))

    def free_at(self, wall_s: float) -> Ints:
        """GPUs of each node that are free by then if every job runs to its limit."""
        return np.asarray((self._until_s <= wall_s).sum(axis=1))
