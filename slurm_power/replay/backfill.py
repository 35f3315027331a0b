"""Who starts: first in order, then whoever does not delay the first that waits (EASY): over GPUs, nodes and watts.

Watts are asked for as Slurm asks for a licence that is reserved over time: a job needs its licensed watts beside all
that is held now, in every slot its time limit reaches into. Firm jobs hold another licence and are not asked.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from slurm_power.replay.budget import WattsBudget
from slurm_power.replay.cluster import Cluster
from slurm_power.replay.job_table import JobTable

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Start = Callable[[int, Ints, "StartedBy"], None]
_SAME_WATTS = 1e-6


class StartedBy(IntEnum):
    ORDER = 0
    BACKFILL = 1


class WaitedFor(IntEnum):
    """Why a job did not start when it was last looked at."""

    NOTHING = 0
    GPUS = 1
    WATTS = 2
    TURN = 3  # would delay the first in the queue
    HOLD = 4


class Queue:
    """Waiting jobs that may start, by priority, then by submission."""

    def __init__(self, table: JobTable) -> None:
        self._keys: list[tuple[int, float, int]] = []
        self._table = table

    def __len__(self) -> int:
        return len(self._keys)

    def _key(self, row: int) -> tuple[int, float, int]:
        return (-int(self._table.priority[row]), float(self._table.submit_s[row]), row)

    def add(self, row: int) -> None:
        key = self._key(row)
        place = bisect_left(self._keys, key)
        if place == len(self._keys) or self._keys[place] != key:
            self._keys.insert(place, key)

    def remove(self, row: int) -> None:
        key = self._key(row)
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            del self._keys[place]

    def head(self) -> int:
        return self._keys[0][2]

    def first(self, count: int) -> Ints:
        return np.array([key[2] for key in self._keys[:count]], dtype=np.intp)


@dataclass(slots=True)
class _Reservation:
    """What the first waiting job is promised, and what others may still take of it."""

    start_s: float
    gpus_each: int
    free_then: Ints
    spare_nodes: int
    spare_watts: float

    def harmful(self, gpus_each: Ints | int) -> Flags:
        """Nodes that would no longer do for the promise if a long job took so many GPUs there."""
        return np.asarray((self.free_then >= self.gpus_each) & (self.free_then - gpus_each < self.gpus_each))

    def nodes_for_long(self, free: Ints, widest: int) -> Ints:
        """Entry k: nodes on which long jobs may take k GPUs each at once and the promise still holds."""
        sizes = np.arange(widest + 1)[:, None]
        fitting = free >= sizes
        harmful = fitting & self.harmful(sizes)
        harmful_nodes = harmful.sum(axis=1)
        return np.asarray(fitting.sum(axis=1) - harmful_nodes + np.minimum(harmful_nodes, self.spare_nodes))

    def take(self, chosen: Ints, harmful: Flags, gpus_each: int, watts: float) -> None:
        self.spare_nodes -= int(np.count_nonzero(harmful[chosen]))
        self.free_then[chosen] -= gpus_each
        self.spare_watts -= watts


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Waiting jobs as a pass looks at them, in the queue's order."""

    rows: Ints
    ends_s: Floats  # at the latest, if they start now
    watts: Floats  # licensed; 0: firm
    lowest_watts: Floats  # of the budget while they may run

    def among(self, places: Ints) -> _Candidates:
        return _Candidates(self.rows[places], self.ends_s[places], self.watts[places], self.lowest_watts[places])


def _start_of(promise: _Reservation | None) -> float:
    return math.inf if promise is None else promise.start_s


class Scheduler:
    def __init__(self, table: JobTable, cluster: Cluster, *, depth: int, start: Start) -> None:
        """`start` is told (job, the nodes chosen, how it came to start) and takes the GPUs."""
        self.queue = Queue(table)
        self.budget: WattsBudget | None = None
        self.held_watts = 0.0
        self.waited_for = np.zeros(table.count, dtype=np.int8)
        self._table, self._cluster, self._depth, self._start = table, cluster, depth, start

    def in_order(self, now_s: float) -> None:
        """Start from the front of the queue until one does not fit."""
        while self.queue:
            row = self.queue.head()
            if not self._has_watts(row, now_s):
                self.waited_for[row] = WaitedFor.WATTS
                return
            chosen = self._cluster.choose(int(self._table.nodes[row]), int(self._table.gpus_each[row]))
            if chosen is None:
                self.waited_for[row] = WaitedFor.GPUS
                return
            self._begin(row, chosen, StartedBy.ORDER)

    def backfill(self, running: Ints, now_s: float) -> None:
        """The first in the queue does not fit now (`in_order` has just been called)."""
        if len(self.queue) < 2:
            return
        rows = self.queue.first(self._depth)
        if not self._cluster.free_gpus:
            self.waited_for[rows] = WaitedFor.GPUS
            return
        promise = self._reservation(int(rows[0]), running, now_s)
        rest = self._candidates(rows[1:], now_s)
        while True:
            ready = np.flatnonzero(self._may_start(rest, promise))
            if not ready.size:
                return
            first = int(ready[0])
            self._start_beside(int(rest.rows[first]), promise, in_time=bool(rest.ends_s[first] <= _start_of(promise)))
            rest = rest.among(ready[1:])  # whoever could not start before cannot do so now: there is less of all

    def _candidates(self, rows: Ints, now_s: float) -> _Candidates:
        table = self._table
        ends_s = now_s + table.limit_s[rows]
        bound = table.bound[rows]
        watts = np.where(bound, table.licensed_watts[rows], 0.0)
        lowest_watts = np.full(rows.size, math.inf)
        if self.budget is not None:
            lowest_watts[bound] = self.budget.lowest_watts(now_s, ends_s[bound])
        return _Candidates(rows, ends_s, watts, lowest_watts)

    def _may_start(self, some: _Candidates, promise: _Reservation | None) -> Flags:
        """Each by itself."""
        table, cluster = self._table, self._cluster
        nodes, gpus_each = table.nodes[some.rows], table.gpus_each[some.rows]
        fits = cluster.nodes_with_free()[gpus_each] >= nodes
        powered = some.watts <= some.lowest_watts - self.held_watts + _SAME_WATTS
        in_turn = some.ends_s <= _start_of(promise)
        if promise is not None:
            harmless = promise.nodes_for_long(cluster.free, cluster.widest)[gpus_each] >= nodes
            in_turn |= harmless & (some.watts <= promise.spare_watts + _SAME_WATTS)
        reasons = np.where(fits, np.where(powered, WaitedFor.TURN, WaitedFor.WATTS), WaitedFor.GPUS)
        self.waited_for[some.rows] = reasons
        return np.asarray(fits & powered & in_turn)

    def _start_beside(self, row: int, promise: _Reservation | None, *, in_time: bool) -> None:
        """It may start, so nodes are found; a long one spares those of the promise where it can."""
        table = self._table
        nodes, gpus_each = int(table.nodes[row]), int(table.gpus_each[row])
        if promise is None or in_time:
            chosen = self._cluster.choose(nodes, gpus_each)
        else:
            harmful = promise.harmful(gpus_each)
            chosen = self._cluster.choose(nodes, gpus_each, avoid=harmful)
            if chosen is not None:
                watts = float(table.licensed_watts[row]) if table.bound[row] else 0.0
                promise.take(chosen, harmful, gpus_each, watts)
        assert chosen is not None
        self._begin(row, chosen, StartedBy.BACKFILL)

    def _has_watts(self, row: int, now_s: float) -> bool:
        if self.budget is None or not self._table.bound[row]:
            return True
        lowest_watts = self.budget.lowest_watts_once(now_s, now_s + float(self._table.limit_s[row]))
        return float(self._table.licensed_watts[row]) <= lowest_watts - self.held_watts + _SAME_WATTS

    def _begin(self, row: int, chosen: Ints, how: StartedBy) -> None:
        self.queue.remove(row)
        self._start(row, chosen, how)

    def _reservation(self, row: int, running: Ints, now_s: float) -> _Reservation | None:
        """None: nobody can say when it starts, so nobody can be said to delay it."""
        table, cluster = self._table, self._cluster
        nodes, gpus_each = int(table.nodes[row]), int(table.gpus_each[row])
        start_s = cluster.earliest_s(nodes, gpus_each, now_s=now_s)
        spare_watts = math.inf
        if math.isfinite(start_s) and self.budget is not None and table.bound[row]:
            start_s, spare_watts = self._when_watts_fit(row, running, self.budget, from_s=start_s)
        if not math.isfinite(start_s):
            return None
        free_then = cluster.free_at(start_s)
        spare_nodes = int(np.count_nonzero(free_then >= gpus_each)) - nodes
        return _Reservation(start_s, gpus_each, free_then, spare_nodes, spare_watts)

    def _when_watts_fit(self, row: int, running: Ints, budget: WattsBudget, *, from_s: float) -> tuple[float, float]:
        """(the first moment from `from_s` on at which its watts are free for its whole limit, watts left over then)."""
        table = self._table
        holders = running[table.bound[running]]
        order = np.argsort(table.limit_end_s[holders])
        ends_s = table.limit_end_s[holders][order]
        freed_watts = np.concatenate(([0.0], table.licensed_watts[holders][order].cumsum()))
        later = ends_s[(ends_s > from_s) & np.isfinite(ends_s)]
        moments = np.unique(np.concatenate(([from_s], later, budget.boundaries_after(from_s))))
        held_watts = self.held_watts - freed_watts[np.searchsorted(ends_s, moments, side="right")]
        room_watts = budget.lowest_watts(moments, moments + float(table.limit_s[row])) - held_watts
        left_watts = room_watts - table.licensed_watts[row]
        fitting = np.flatnonzero(left_watts >= -_SAME_WATTS)
        if not fitting.size:
            return math.inf, math.inf
        return float(moments[fitting[0]]), float(left_watts[fitting[0]])
