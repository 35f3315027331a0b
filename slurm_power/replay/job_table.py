"""All jobs of a run as columns. A row never moves; what changes is written in place, for one job or many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.cluster import Cluster
from slurm_power.replay.settings import ReplayConfig
from slurm_power.replay.trace import TraceJob

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CLASSES = tuple(PowerClass)
FIRM_CODE = CLASSES.index(PowerClass.FIRM)


class Phase(IntEnum):
    FUTURE = 0
    PENDING = 1
    RUNNING = 2
    SUSPENDED = 3
    FINISHED = 4
    TIMED_OUT = 5
    REFUSED = 6  # wider than the cluster


ENDED = (Phase.FINISHED, Phase.TIMED_OUT, Phase.REFUSED)


class JobTable:
    def __init__(self, jobs: Sequence[TraceJob], cluster: Cluster, config: ReplayConfig) -> None:
        self._config = config
        self._curves = [config.default_curve, *config.curves.values()]
        self._columns_from_trace(jobs)
        self._columns_from_shape(jobs, cluster)
        self._columns_from_curves()
        self._columns_that_change()

    def _columns_from_trace(self, jobs: Sequence[TraceJob]) -> None:
        curve_numbers = {name: number for number, name in enumerate(self._config.curves, start=1)}
        self.count = len(jobs)
        self.job_id = np.array([job.job_id for job in jobs], dtype=np.int64)
        self.submit_s = np.array([job.submit_s for job in jobs], dtype=np.float64)
        self.gpus = np.array([job.gpus for job in jobs], dtype=np.intp)
        self.runtime_s = np.array([job.runtime_s for job in jobs], dtype=np.float64)
        limits = [math.inf if job.time_limit_s is None else job.time_limit_s for job in jobs]
        self.limit_s = np.array(limits, dtype=np.float64)
        self.power_class = np.array([CLASSES.index(job.power_class) for job in jobs], dtype=np.int8)
        self.max_slowdown_fraction = np.array([job.max_slowdown_fraction for job in jobs], dtype=np.float64)
        self.max_delay_s = np.array([job.max_delay_s for job in jobs], dtype=np.float64)
        self.curve = np.array([curve_numbers.get(job.workload, 0) for job in jobs], dtype=np.intp)
        self.users = tuple(sorted({job.user for job in jobs}))
        user_numbers = {name: number for number, name in enumerate(self.users)}
        self.user = np.array([user_numbers[job.user] for job in jobs], dtype=np.intp)
        priority = [self._config.class_priority.get(c, 0) for c in CLASSES]
        self.priority = np.array(priority, dtype=np.intp)[self.power_class]

    def _columns_from_shape(self, jobs: Sequence[TraceJob], cluster: Cluster) -> None:
        shapes = [cluster.shape_of(job.gpus, job.nodes) for job in jobs]
        self.fits_cluster = np.array([shape is not None for shape in shapes], dtype=np.bool_)
        self.nodes = np.array([shape[0] if shape else 0 for shape in shapes], dtype=np.intp)
        self.gpus_each = np.array([shape[1] if shape else 0 for shape in shapes], dtype=np.intp)
        self.held_gpus = self.nodes * self.gpus_each
        self.unused_gpus = self.held_gpus - self.gpus  # of whole nodes
        self.base_share = self.held_gpus / cluster.widest

    def _columns_from_curves(self) -> None:
        config = self._config
        drawn = np.array([curve.uncapped_draw_watts for curve in self._curves])
        self.uncapped_gpu_watts = drawn[self.curve]
        self.lowest_cap_watts = np.full(self.count, config.gpu_max_watts)
        keys, where = np.unique(np.stack((self.curve, self.max_slowdown_fraction)), axis=1, return_inverse=True)
        for number, (curve, slowdown) in enumerate(keys.T):
            cap = self._curves[int(curve)].lowest_cap_watts(float(slowdown))
            self.lowest_cap_watts[where.reshape(-1) == number] = min(
                config.gpu_max_watts, max(config.min_gpu_cap_watts, cap)
            )
        self.nominal_watts = self.gpus * config.gpu_max_watts + self.base_share * config.node_base_watts

    def _columns_that_change(self) -> None:
        count = self.count
        self.bound = self.power_class != FIRM_CODE  # its licence is of the pool that a budget limits
        self.phase = np.where(self.fits_cluster, Phase.FUTURE, Phase.REFUSED).astype(np.int8)
        self.cap_watts = np.full(count, math.nan)
        self.licensed_watts = self.nominal_watts.copy()
        self.draw_watts = np.zeros(count)
        self.speed = np.zeros(count)
        self.done_s = np.zeros(count)  # work, in seconds at full speed, as of `since_s`
        self.since_s = np.zeros(count)
        self.start_s = np.full(count, math.nan)
        self.first_start_s = np.full(count, math.nan)
        self.end_s = np.full(count, math.nan)
        self.limit_end_s = np.full(count, math.inf)
        self.suspended_at_s = np.full(count, math.nan)
        self.not_before_s = np.full(count, -math.inf)
        self.joules = np.zeros(count)
        self.ran_s = np.zeros(count)
        self.capped_gpu_s = np.zeros(count)
        self.lost_gpu_s = np.zeros(count)
        self.requeues = np.zeros(count, dtype=np.intp)
        self.suspensions = np.zeros(count, dtype=np.intp)
        self.paused_s = np.zeros(count)  # suspended since its start
        self.touched = np.zeros(count, dtype=np.bool_)

    def account(self, rows: Ints, now_s: float) -> None:
        """Bring work, energy and capped time of running or suspended jobs up to now."""
        elapsed_s = now_s - self.since_s[rows]
        self.done_s[rows] += self.speed[rows] * elapsed_s
        self.joules[rows] += self.draw_watts[rows] * elapsed_s
        running_s = np.where(self.phase[rows] == Phase.RUNNING, elapsed_s, 0.0)
        self.ran_s[rows] += running_s
        self.capped_gpu_s[rows] += np.where(np.isnan(self.cap_watts[rows]), 0.0, running_s) * self.gpus[rows]
        self.since_s[rows] = now_s

    def account_one(self, row: int, now_s: float) -> None:
        """The same for one job, without the cost of arrays."""
        elapsed_s = now_s - float(self.since_s[row])
        self.done_s[row] += self.speed[row] * elapsed_s
        self.joules[row] += self.draw_watts[row] * elapsed_s
        if self.phase[row] == Phase.RUNNING:
            self.ran_s[row] += elapsed_s
            if not math.isnan(self.cap_watts[row]):
                self.capped_gpu_s[row] += elapsed_s * self.gpus[row]
        self.since_s[row] = now_s

    def run_uncapped(self, row: int) -> None:
        self.cap_watts[row] = math.nan
        self.speed[row] = 1.0
        self.licensed_watts[row] = self.nominal_watts[row]
        self.draw_watts[row] = self.gpus[row] * self.uncapped_gpu_watts[row] + self._around_watts(row)

    def run_capped(self, rows: Ints, cap_watts: Floats) -> None:
        """NaN: uncapped. The licence shrinks by what the cap takes from the nominal watts, as the controller does."""
        top = self._config.gpu_max_watts
        in_force = np.where(np.isnan(cap_watts), top, cap_watts)
        speed, draw = np.ones(rows.size), self.uncapped_gpu_watts[rows].copy()
        numbers = self.curve[rows]
        for number in np.unique(numbers):
            mine = (numbers == number) & ~np.isnan(cap_watts)
            speed[mine] = self._curves[number].throughput_fraction(in_force[mine])
            draw[mine] = self._curves[number].drawn_watts(in_force[mine])
        self.cap_watts[rows] = cap_watts
        self.speed[rows] = speed
        self.draw_watts[rows] = self.gpus[rows] * draw + self._around_watts(rows)
        self.licensed_watts[rows] = self.nominal_watts[rows] - self.gpus[rows] * (top - in_force)

    def stand_still(self, row: int) -> None:
        """Suspended: GPUs stay taken and idle, and the licence counts no more than that."""
        self.speed[row] = 0.0
        self.draw_watts[row] = self.gpus[row] * self._config.gpu_idle_watts + self._around_watts(row)
        self.licensed_watts[row] = self.draw_watts[row]

    def idle_watts_of(self, row: int) -> float:
        """What the GPUs it holds, and their share of the node, would draw without it."""
        base_watts = self.base_share[row] * self._config.node_base_watts
        return float(self.held_gpus[row] * self._config.gpu_idle_watts + base_watts)

    def kept_work_s(self, row: int) -> float:
        """What its last checkpoint holds."""
        interval_s = self._config.checkpoint_interval_s
        done_s = float(self.done_s[row])
        return 0.0 if interval_s is None else math.floor(done_s / interval_s + 1e-9) * interval_s

    def _around_watts(self, rows: Ints | int) -> Floats | float:
        """Its share of the nodes, and GPUs of whole nodes that it holds but does not use."""
        config = self._config
        return self.base_share[rows] * config.node_base_watts + self.unused_gpus[rows] * config.gpu_idle_watts
