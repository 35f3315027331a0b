"""What a policy sees at each slot's beginning, and what it may order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slurm_power.replay.job_table import JobTable, Phase

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JobColumns:
    """Some jobs, one entry each. How long they really run is not among it: nobody knows that beforehand."""

    job_id: NDArray[np.int64]
    user: Ints
    """Into `View.users`."""

    power_class: NDArray[np.int8]
    """Into `job_table.CLASSES`."""

    gpus: Ints
    nodes: Ints
    submit_s: Floats
    start_s: Floats
    """NaN: it does not run."""

    end_s: Floats
    """NaN: it has not ended."""

    ran_s: Floats
    """So far, over all its starts."""

    time_limit_s: Floats
    """inf: unlimited."""

    remaining_limit_s: Floats
    """Of a waiting job, all of it."""

    max_slowdown_fraction: Floats
    max_delay_s: Floats
    licensed_watts: Floats
    draw_watts: Floats
    """Now, with its share of the nodes; 0 while it waits."""

    uncapped_gpu_watts: Floats
    """What one of its GPUs draws without a cap."""

    lowest_cap_watts: Floats
    """That keeps its slowdown within its bound."""

    cap_watts: Floats
    """NaN: not capped."""

    not_before_s: Floats
    """-inf: it may start at once."""

    suspended: NDArray[np.bool_]
    requeues: Ints
    bound: NDArray[np.bool_]
    """Its watts are of the budget; firm jobs' are not, nor those of jobs that were freed."""

    def __len__(self) -> int:
        return int(self.job_id.size)

    @property
    def uncapped_watts(self) -> Floats:
        """Its GPUs without caps."""
        return self.gpus * self.uncapped_gpu_watts


def job_columns(table: JobTable, rows: Ints, *, now_s: float) -> JobColumns:
    phase = table.phase[rows]
    active = (phase == Phase.RUNNING) | (phase == Phase.SUSPENDED)
    # While it is suspended its limit does not run.
    until_s = np.where(phase == Phase.SUSPENDED, table.suspended_at_s[rows], now_s)
    used_s = np.where(active, until_s - table.start_s[rows] - table.paused_s[rows], 0.0)
    since_s = np.where(phase == Phase.RUNNING, now_s - table.since_s[rows], 0.0)
    return JobColumns(
        job_id=table.job_id[rows],
        user=table.user[rows],
        power_class=table.power_class[rows],
        gpus=table.gpus[rows],
        nodes=table.nodes[rows],
        submit_s=table.submit_s[rows],
        start_s=table.start_s[rows],
        end_s=table.end_s[rows],
        ran_s=table.ran_s[rows] + since_s,
        time_limit_s=table.limit_s[rows],
        remaining_limit_s=np.maximum(table.limit_s[rows] - used_s, 0.0),
        max_slowdown_fraction=table.max_slowdown_fraction[rows],
        max_delay_s=table.max_delay_s[rows],
        licensed_watts=table.licensed_watts[rows],
        draw_watts=np.where(active, table.draw_watts[rows], 0.0),
        uncapped_gpu_watts=table.uncapped_gpu_watts[rows],
        lowest_cap_watts=table.lowest_cap_watts[rows],
        cap_watts=table.cap_watts[rows],
        not_before_s=table.not_before_s[rows],
        suspended=np.asarray(phase == Phase.SUSPENDED),
        requeues=table.requeues[rows],
        bound=table.bound[rows],
    )


class View:
    """The cluster at a slot's beginning; what is not asked for is not computed. Valid until `decide` returns."""

    def __init__(
        self,
        table: JobTable,
        *,
        slot: int,
        now_s: float,
        running: Ints,
        pending: Ints,
        ended: Ints,
        free_gpus: int,
        idle_watts: float,
        it_watts: float,
        slot_watts: Sequence[float],
    ) -> None:
        self._table = table
        self._rows = {"running": running, "pending": pending, "ended": ended}
        self.slot = slot
        self.now_s = now_s
        self.free_gpus = free_gpus
        self.idle_watts = idle_watts
        """Of free GPUs and the free share of the nodes."""
        self.it_watts = it_watts
        """At this moment, before any order."""
        self.slot_watts = slot_watts
        """Mean IT watts of each past slot; do not change it."""
        self.users = table.users

    @property
    def running(self) -> JobColumns:
        """Those that hold GPUs, suspended ones too."""
        return self._columns("running")

    @property
    def pending(self) -> JobColumns:
        """In no particular order, those that may not start yet too."""
        return self._columns("pending")

    @property
    def ended(self) -> JobColumns:
        """During the last slot."""
        return self._columns("ended")

    @property
    def pending_count(self) -> int:
        return int(self._rows["pending"].size)

    @property
    def pending_gpus(self) -> int:
        return int(self._table.gpus[self._rows["pending"]].sum())

    @property
    def running_gpus(self) -> int:
        return int(self._table.gpus[self._rows["running"]].sum())

    def _columns(self, name: str) -> JobColumns:
        return job_columns(self._table, self._rows[name], now_s=self.now_s)


@dataclass(frozen=True, slots=True)
class Orders:
    """What holds until the next slot, complete: a cap, a hold or a suspension that is not named any more is lifted."""

    budget_watts: Sequence[float] | None = None
    """Licensed watts that jobs other than firm ones may hold, per slot from the one that begins now; unlimited
    after the last. None: unlimited."""

    caps: Mapping[int, float] = field(default_factory=dict)
    """Watts per GPU by the id of a running job."""

    holds: Mapping[int, float] = field(default_factory=dict)
    """By the id of a waiting job: do not start before (seconds of the trace)."""

    requeues: Sequence[int] = ()
    suspended: frozenset[int] = frozenset()
    freed: Sequence[int] = ()
    """Waiting jobs that no budget binds from now on, for good."""


class Policy(Protocol):
    def decide(self, view: View) -> Orders: ...


class NoPolicy:
    """Everything runs as soon and as fast as it can."""

    def decide(self, view: View) -> Orders:
        return Orders()
