"""The cluster while it runs: each change to a job moves GPUs, watts, work and energy together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from slurm_power.replay.backfill import Scheduler, StartedBy, WaitedFor
from slurm_power.replay.cluster import Cluster
from slurm_power.replay.job_table import JobTable, Phase
from slurm_power.replay.meter import Meter
from slurm_power.replay.results import StartRecord
from slurm_power.replay.rows import RowSet
from slurm_power.replay.settings import ReplayConfig
from slurm_power.replay.trace import TraceJob

Ints = NDArray[np.intp]
EndsAt = Callable[[int, float | None], None]
_SAME_S = 1e-6
_SAME_FRACTION = 1e-9


class LiveCluster:
    def __init__(self, jobs: Sequence[TraceJob], config: ReplayConfig, *, ends_at: EndsAt) -> None:
        """`ends_at` is told whenever the end of a running job is known anew."""
        self._config, self._ends_at = config, ends_at
        self.now_s = 0.0
        self.cluster = Cluster(config.node_gpus)
        self.table = JobTable(jobs, self.cluster, config)
        self.scheduler = Scheduler(self.table, self.cluster, depth=config.backfill_depth, start=self._start)
        self.meter = Meter(config)
        self.running = RowSet(self.table.count)
        """Suspended ones, too: they keep their GPUs."""
        self.pending = RowSet(self.table.count)
        self.starts: list[StartRecord] = []
        self.ended_count = int(np.count_nonzero(~self.table.fits_cluster))
        self._taken: dict[int, Ints] = {}
        self._ended: list[int] = []
        self._requeued_until_s = np.full(self.table.count, -math.inf)
        self._wanted_cap_watts = np.full(self.table.count, math.nan)

    # Time

    def move_to(self, moment_s: float) -> None:
        self.meter.run(moment_s - self.now_s)
        self.now_s = moment_s

    def end_slot(self) -> None:
        rows = self.running.rows
        table, config = self.table, self._config
        occupied_watts = table.held_gpus[rows] * config.gpu_idle_watts + table.base_share[rows] * config.node_base_watts
        jobs_watts = float(table.draw_watts[rows].sum())
        self.meter.settle(jobs_watts=jobs_watts, occupied_idle_watts=float(occupied_watts.sum()))
        bound = rows[table.bound[rows]]
        self.scheduler.held_watts = float(table.licensed_watts[bound].sum())
        self.meter.end_slot()

    def account_all(self) -> None:
        self.table.account(self.running.rows, self.now_s)

    def take_ended(self) -> list[int]:
        """Since it was last asked."""
        ended, self._ended = self._ended, []
        return ended

    # Waiting

    def arrive(self, row: int) -> None:
        self.table.phase[row] = Phase.PENDING
        self.pending.add(row)

    def make_ready(self, row: int) -> None:
        """Into the queue, unless something still keeps it from it."""
        if row in self.pending and self.table.not_before_s[row] <= self.now_s:
            self.scheduler.queue.add(row)

    def hold(self, row: int, until_s: float | None) -> None:
        """Out of the queue. None: our hold is lifted, what Slurm imposed after a requeue stays."""
        slurm_s = float(self._requeued_until_s[row])
        self.scheduler.queue.remove(row)
        self.table.not_before_s[row] = slurm_s if until_s is None else max(slurm_s, until_s)
        if until_s is not None:
            self.table.touched[row] = True
            self.scheduler.waited_for[row] = WaitedFor.HOLD

    def backfill(self) -> None:
        self.scheduler.backfill(self.running.rows, self.now_s)

    # Running

    def _start(self, row: int, chosen: Ints, started_by: StartedBy) -> None:
        table, now_s = self.table, self.now_s
        limit_end_s = now_s + float(table.limit_s[row])
        self._taken[row] = self.cluster.take(chosen, int(table.gpus_each[row]), until_s=limit_end_s)
        self.pending.remove(row)
        self.running.add(row)
        table.phase[row] = Phase.RUNNING
        table.start_s[row] = table.since_s[row] = now_s
        table.limit_end_s[row] = limit_end_s
        if math.isnan(table.first_start_s[row]):
            table.first_start_s[row] = now_s
        table.run_uncapped(row)
        self._occupy(row)
        waited_for = WaitedFor(int(self.scheduler.waited_for[row]))
        self.starts.append(StartRecord(int(table.job_id[row]), now_s, started_by, waited_for))
        self._tell_end(row)

    def end(self, row: int) -> None:
        table = self.table
        self._leave(row)
        undone_s = float(table.runtime_s[row] - table.done_s[row])
        is_done = undone_s <= _SAME_S + _SAME_FRACTION * float(table.runtime_s[row])
        table.phase[row] = Phase.FINISHED if is_done else Phase.TIMED_OUT
        table.end_s[row] = self.now_s
        self._ended.append(row)
        self.ended_count += 1

    def free(self, row: int) -> None:
        """A waiting job has waited as long as it may: no budget binds it any more."""
        self.table.bound[row] = False

    def requeue(self, row: int) -> None:
        """Back to its place in the queue, but not before Slurm lets it; work since its last checkpoint is lost."""
        table = self.table
        self._leave(row)
        kept_s = table.kept_work_s(row)
        table.lost_gpu_s[row] += table.gpus[row] * (table.done_s[row] - kept_s)
        table.done_s[row] = kept_s
        table.requeues[row] += 1
        table.touched[row] = True
        table.phase[row] = Phase.PENDING
        table.start_s[row] = math.nan
        table.cap_watts[row] = math.nan
        table.licensed_watts[row] = table.nominal_watts[row]
        self._requeued_until_s[row] = table.not_before_s[row] = self.now_s + self._config.requeue_delay_s
        self.pending.add(row)
        self._ends_at(row, None)

    def suspend(self, row: int) -> None:
        """Its limit does not run meanwhile, and nobody knows when its GPUs come free."""
        table = self.table
        table.account_one(row, self.now_s)
        before = self._drawn_and_held(row)
        table.phase[row] = Phase.SUSPENDED
        table.suspended_at_s[row] = self.now_s
        table.suspensions[row] += 1
        table.touched[row] = True
        table.stand_still(row)
        self._drawn_and_held_changed(row, before)
        self._limit_moved(row, by_s=math.inf)
        self._ends_at(row, None)

    def resume(self, row: int) -> None:
        table = self.table
        table.account_one(row, self.now_s)
        before = self._drawn_and_held(row)
        table.phase[row] = Phase.RUNNING
        table.run_uncapped(row)
        self._drawn_and_held_changed(row, before)
        used_s = table.suspended_at_s[row] - table.start_s[row] - table.paused_s[row]
        table.paused_s[row] += self.now_s - table.suspended_at_s[row]
        table.limit_end_s[row] = self.now_s + table.limit_s[row] - used_s
        self._limit_moved(row, by_s=0.0)
        self._tell_end(row)

    def set_caps(self, rows: Sequence[int], cap_watts: Sequence[float]) -> None:
        """All caps that hold from now on; every other running job is uncapped."""
        table, wanted = self.table, self._wanted_cap_watts
        named = np.array(rows, dtype=np.intp)
        wanted[named] = self._in_range(np.array(cap_watts, dtype=np.float64))
        running = self.running.rows[table.phase[self.running.rows] == Phase.RUNNING]
        before, after = table.cap_watts[running], wanted[running]
        changed = running[(before != after) & ~(np.isnan(before) & np.isnan(after))]
        if changed.size:
            self._cap(changed, wanted[changed])
        wanted[named] = math.nan

    def _in_range(self, cap_watts: np.ndarray[tuple[int], np.dtype[np.float64]]) -> NDArray[np.float64]:
        """NaN: as high as the board goes, which is no cap."""
        config = self._config
        capped = cap_watts < config.gpu_max_watts
        return np.where(capped, np.maximum(cap_watts, config.min_gpu_cap_watts), math.nan)

    def _cap(self, rows: Ints, cap_watts: NDArray[np.float64]) -> None:
        table = self.table
        table.account(rows, self.now_s)
        bound = table.bound[rows]
        drawn_watts, held_watts = table.draw_watts[rows].sum(), table.licensed_watts[rows][bound].sum()
        table.run_capped(rows, cap_watts)
        table.touched[rows] = True
        self.meter.change(float(table.draw_watts[rows].sum() - drawn_watts))
        self.scheduler.held_watts += float(table.licensed_watts[rows][bound].sum() - held_watts)
        for row in rows.tolist():
            self._tell_end(row)

    # Books

    def _leave(self, row: int) -> None:
        table = self.table
        table.account_one(row, self.now_s)
        self.meter.vacate(float(table.draw_watts[row]), table.idle_watts_of(row))
        if table.bound[row]:
            self.scheduler.held_watts -= float(table.licensed_watts[row])
        self.cluster.release(self._taken.pop(row))
        self.running.remove(row)
        table.speed[row] = table.draw_watts[row] = table.paused_s[row] = 0.0

    def _occupy(self, row: int) -> None:
        table = self.table
        self.meter.occupy(float(table.draw_watts[row]), table.idle_watts_of(row))
        if table.bound[row]:
            self.scheduler.held_watts += float(table.licensed_watts[row])

    def _drawn_and_held(self, row: int) -> tuple[float, float]:
        return float(self.table.draw_watts[row]), float(self.table.licensed_watts[row])

    def _drawn_and_held_changed(self, row: int, before: tuple[float, float]) -> None:
        drawn_watts, held_watts = self._drawn_and_held(row)
        self.meter.change(drawn_watts - before[0])
        if self.table.bound[row]:
            self.scheduler.held_watts += held_watts - before[1]

    def _limit_moved(self, row: int, *, by_s: float) -> None:
        self.table.limit_end_s[row] += by_s
        self.cluster.keep_until(self._taken[row], float(self.table.limit_end_s[row]))

    def _tell_end(self, row: int) -> None:
        """When its work is done, or at its limit."""
        table = self.table
        left_s = max(0.0, float(table.runtime_s[row] - table.done_s[row]))
        done_at_s = self.now_s + left_s / float(table.speed[row])
        limit_end_s = float(table.limit_end_s[row])
        self._ends_at(row, done_at_s if done_at_s <= limit_end_s + _SAME_S else limit_end_s)
