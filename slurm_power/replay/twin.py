"""The twin: a trace runs on a cluster, event by event, and a policy is asked once a slot."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np

from slurm_power.replay.budget import WattsBudget
from slurm_power.replay.job_table import Phase
from slurm_power.replay.live_cluster import LiveCluster
from slurm_power.replay.policy import NoPolicy, Orders, Policy, View
from slurm_power.replay.results import Replay, outcomes_of, slot_watts_of
from slurm_power.replay.settings import ReplayConfig
from slurm_power.replay.trace import Trace, TraceJob

Progress = Callable[[float, int], None]
"""(simulated seconds, jobs that have ended) after each slot."""


def replay(
    trace: Trace | Sequence[TraceJob],
    config: ReplayConfig,
    policy: Policy | None = None,
    *,
    until_s: float | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Run to the end of the slot in which the last job ends, or to the slot's end at or after `until_s`."""
    jobs = trace.jobs if isinstance(trace, Trace) else tuple(trace)
    twin = Twin(jobs, config, policy or NoPolicy())
    while twin.run_slot():
        if progress is not None:
            progress(twin.now_s, twin.ended_count)
        if until_s is not None and twin.now_s >= until_s:
            break
    return twin.result()


class _Event(IntEnum):
    """In this order at the same moment."""

    END = 0
    ARRIVAL = 1
    RELEASE = 2
    SLOT = 3
    BACKFILL = 4


class Twin:
    def __init__(self, jobs: Sequence[TraceJob], config: ReplayConfig, policy: Policy) -> None:
        self._config, self._policy = config, policy
        self._live = LiveCluster(jobs, config, ends_at=self._ends_at)
        self._row_of = {int(job_id): row for row, job_id in enumerate(self._live.table.job_id)}
        self._version = [0] * len(jobs)  # of each job's end; older ones in the heap do not count
        self._holds: dict[int, float] = {}
        self._to_arrive = int(np.count_nonzero(self._live.table.fits_cluster))
        self._backfill_planned = False
        self._last_alive_s = 0.0
        self._events: list[tuple[float, int, int, int]] = [
            (float(self._live.table.submit_s[row]), _Event.ARRIVAL, int(row), 0)
            for row in np.flatnonzero(self._live.table.fits_cluster)
        ]
        heapq.heapify(self._events)

    @property
    def now_s(self) -> float:
        return self._live.now_s

    @property
    def ended_count(self) -> int:
        return self._live.ended_count

    def run_slot(self) -> bool:
        """Ask the policy, then run to the end of the slot. False: nothing is left to run."""
        slot_end_s = (len(self._live.meter.slot_watts) + 1) * self._config.slot_s
        heapq.heappush(self._events, (self.now_s, _Event.SLOT, 0, 0))
        while self._next_s() < slot_end_s:
            self._run_moment(self._next_s())
        self._live.move_to(slot_end_s)
        while self._next_s() == slot_end_s and self._events[0][1] == _Event.END:
            self._happen(*heapq.heappop(self._events)[1:3])  # who takes their place is the next decision's matter
        self._live.end_slot()
        if self._live.running or self._to_arrive:
            self._last_alive_s = slot_end_s
        stalled = slot_end_s - self._last_alive_s > self._config.stall_s
        return self.ended_count < self._live.table.count and not stalled

    def result(self) -> Replay:
        live = self._live
        live.account_all()
        return Replay(
            slot_s=self._config.slot_s,
            slot_watts=slot_watts_of(live.meter.slot_watts),
            jobs=outcomes_of(live.table),
            starts=tuple(live.starts),
            job_joules=live.meter.job_joules,
            idle_joules=live.meter.idle_joules,
            highest_it_watts=live.meter.highest_watts,
            gpus=self._config.gpus,
        )

    def _next_s(self) -> float:
        """When something happens next; ends that have moved since do not count."""
        events = self._events
        while events:
            moment_s, kind, row, version = events[0]
            if kind != _Event.END or version == self._version[row]:
                return moment_s
            heapq.heappop(events)
        return math.inf

    def _run_moment(self, moment_s: float) -> None:
        """All that happens at one moment, then whoever can start does."""
        self._live.move_to(moment_s)
        happened = backfill = False
        while self._next_s() == moment_s:
            _, kind, row, _ = heapq.heappop(self._events)
            if kind == _Event.BACKFILL:
                backfill, self._backfill_planned = True, False
            else:
                self._happen(kind, row)
                happened = True
        if happened:
            self._live.scheduler.in_order(moment_s)
        if happened or backfill:
            self._backfill(moment_s, now=backfill or self._config.backfill_interval_s == 0)

    def _happen(self, kind: int, row: int) -> None:
        if kind == _Event.END:
            self._live.end(row)
        elif kind == _Event.ARRIVAL:
            self._to_arrive -= 1
            self._live.arrive(row)
            self._live.make_ready(row)
        elif kind == _Event.RELEASE:
            self._live.make_ready(row)
        else:
            self._obey(self._policy.decide(self._view()))

    def _backfill(self, moment_s: float, *, now: bool) -> None:
        """At once, or when Slurm's backfill thread wakes up next."""
        if now or not self._live.scheduler.queue:
            self._live.backfill()
        elif not self._backfill_planned:
            interval_s = self._config.backfill_interval_s
            next_s = math.ceil(moment_s / interval_s) * interval_s
            heapq.heappush(self._events, (max(next_s, moment_s), _Event.BACKFILL, 0, 0))
            self._backfill_planned = True

    def _ends_at(self, row: int, end_s: float | None) -> None:
        """None: for now it does not end."""
        self._version[row] += 1
        if end_s is not None:
            heapq.heappush(self._events, (end_s, _Event.END, row, self._version[row]))

    def _view(self) -> View:
        live = self._live
        return View(
            live.table,
            slot=len(live.meter.slot_watts),
            now_s=live.now_s,
            running=live.running.rows.copy(),
            pending=live.pending.rows.copy(),
            ended=np.array(live.take_ended(), dtype=np.intp),
            free_gpus=live.cluster.free_gpus,
            idle_watts=live.meter.idle_watts,
            it_watts=live.meter.it_watts,
            slot_watts=live.meter.slot_watts,
        )

    def _obey(self, orders: Orders) -> None:
        """Orders about jobs that are not in the state for them are void, as Slurm would refuse them."""
        live, budget = self._live, orders.budget_watts
        live.scheduler.budget = (
            None if budget is None else WattsBudget(budget, start_s=live.now_s, slot_s=self._config.slot_s)
        )
        for job_id in orders.freed:
            row = self._row_of[job_id]
            if row in live.pending:
                live.free(row)
        for job_id in orders.requeues:
            row = self._row_of[job_id]
            if row in live.running:
                live.requeue(row)
                self._release_later(row)
        self._obey_suspensions({self._row_of[job_id] for job_id in orders.suspended})
        live.set_caps([self._row_of[job_id] for job_id in orders.caps], list(orders.caps.values()))
        self._obey_holds({self._row_of[job_id]: until_s for job_id, until_s in orders.holds.items()})

    def _obey_suspensions(self, wanted: set[int]) -> None:
        live, phase = self._live, self._live.table.phase
        rows = live.running.rows
        for row in rows[phase[rows] == Phase.SUSPENDED].tolist():
            if row not in wanted:
                live.resume(row)
        for row in wanted:
            if row in live.running and phase[row] == Phase.RUNNING:
                live.suspend(row)

    def _obey_holds(self, wanted: dict[int, float]) -> None:
        live = self._live
        for row in self._holds.keys() - wanted.keys():
            if row in live.pending:
                live.hold(row, None)
                self._release_later(row)
        for row, until_s in wanted.items():
            if row in live.pending and self._holds.get(row) != until_s:
                live.hold(row, until_s)
                self._release_later(row)
        self._holds = {row: until_s for row, until_s in wanted.items() if row in live.pending}

    def _release_later(self, row: int) -> None:
        """Into the queue when nothing keeps it from it."""
        not_before_s = float(self._live.table.not_before_s[row])
        if not_before_s <= self.now_s:
            self._live.make_ready(row)
        elif math.isfinite(not_before_s):
            heapq.heappush(self._events, (not_before_s, _Event.RELEASE, row, 0))
