"""Keeps count of the joules of every GPU and of the rest of the node, and writes marks: who holds which GPU from now
on, and what has been used up to now. Between two marks all energy belongs to whom the first one names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from slurm_power.daemons.node_agent_cpus import CpuWatch
from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_views import allocation_point, node_energy_point
from slurm_power.gpu.allocation import Allocation
from slurm_power.gpu.job_table import JobTable, holder_of
from slurm_power.monitoring.energy import EnergyMeter, EnergyRules, Moment
from slurm_power.monitoring.energy_check import CheckRules, CounterCheck
from slurm_power.monitoring.energy_marks import Count
from slurm_power.ports.clock import Clock
from slurm_power.ports.telemetry_store import Point

log = logging.getLogger(__name__)

_SHORTEST_S = 1e-6  # two marks of one moment would be one point
_SET_S = 1.0  # between two marks a clock that nobody sets is moved less


class EnergyBook:
    """One life: it begins with the agent. Counts over a restart are joined from the boards' own counters."""

    def __init__(self, *, node_name: str, clock: Clock, cpus: CpuWatch, base_watts: float | None) -> None:
        self._node_name = node_name
        self._clock = clock
        self._cpus = cpus
        self._base_watts = base_watts
        self._born_s, self._life_wall_s = clock.now_s(), clock.wall_s()
        self._clock_ahead_s = self._life_wall_s - self._born_s
        self._meters: dict[str, EnergyMeter] = {}
        self._counters: dict[str, float | None] = {}
        self._wrong: set[str] = set()
        self._marked_wall_s: dict[str, float] = {}

    def name_life(self, clock_ahead_s: float) -> None:
        """By AgentBook.clock_ahead_s, so that lives come in order whoever sets the wall clock."""
        self._life_wall_s = clock_ahead_s + self._born_s

    def clock_was_set(self) -> bool:
        """Since every GPU was marked: then it is time to do so again."""
        return abs(self._clock.wall_s() - self._clock.now_s() - self._clock_ahead_s) > _SET_S

    def add(self, gpus: Iterable[ManagedGpu]) -> None:
        """What was sampled just now."""
        for gpu in gpus:
            if gpu.sample is None or gpu.taken_at_s is None:
                continue
            meter = self._meters.get(gpu.uuid)
            if meter is None:
                meter = self._meters[gpu.uuid] = EnergyMeter(rules=EnergyRules(), check=CounterCheck(CheckRules()))
            meter.add(Moment(gpu.taken_at_s, gpu.sample.energy_joules, gpu.sample.draw_watts))
            self._counters[gpu.uuid] = gpu.sample.energy_joules
            self._tell_wrong(gpu.uuid, meter)

    def mark(self, event: str, job: Allocation, uuids: Iterable[str], *, gpu_count: int) -> list[Point]:
        """A job's begin or end on these GPUs."""
        return [*(self._gpu_mark(uuid, event, job) for uuid in uuids), self._node_mark(gpu_count)]

    def mark_all(self, jobs: JobTable, gpus: Iterable[ManagedGpu]) -> list[Point]:
        """Every GPU as it is: held by a job, or free."""
        self._clock_ahead_s = self._clock.wall_s() - self._clock.now_s()
        uuids = [gpu.uuid for gpu in gpus]
        holders = {uuid: holder_of(jobs, uuid) for uuid in uuids}
        marks = [self._gpu_mark(uuid, "held" if job else "free", job) for uuid, job in holders.items()]
        return [*marks, self._node_mark(len(uuids))]

    def _gpu_mark(self, uuid: str, event: str, job: Allocation | None) -> Point:
        return allocation_point(
            uuid,
            job_id=job.job_id if job else None,
            uid=job.uid if job else None,
            event=event,
            node_name=self._node_name,
            wall_s=self._fresh_wall_s(uuid),
            count=self._count(uuid),
        )

    def _node_mark(self, gpu_count: int) -> Point:
        up_s = self._clock.now_s() - self._born_s
        joules = self._cpus.used(base_watts=self._base_watts, elapsed_s=up_s)
        return node_energy_point(
            node_name=self._node_name,
            wall_s=self._fresh_wall_s(""),
            life_wall_s=self._life_wall_s,
            up_s=up_s,
            gpus=gpu_count,
            cpu_joules=joules.cpu_joules,
            rest_joules=joules.rest_joules,
        )

    def _count(self, uuid: str) -> Count | None:
        meter = self._meters.get(uuid)
        if meter is None:
            return None
        energy_joules = None if meter.counter_is_wrong else self._counters.get(uuid)
        return Count(self._life_wall_s, self._clock.now_s() - self._born_s, meter.used, energy_joules)

    def _fresh_wall_s(self, series: str) -> float:
        wall_s = self._clock.wall_s()
        last_s = self._marked_wall_s.get(series)
        if last_s is not None and abs(wall_s - last_s) < _SHORTEST_S:
            wall_s = last_s + 2 * _SHORTEST_S
        self._marked_wall_s[series] = wall_s
        return wall_s

    def _tell_wrong(self, uuid: str, meter: EnergyMeter) -> None:
        if meter.counter_is_wrong and uuid not in self._wrong:
            self._wrong.add(uuid)
            log.warning(
                "%s: its energy counter is not believed, its power is integrated: %s", uuid, meter.counter_verdict
            )
        elif not meter.counter_is_wrong and uuid in self._wrong:
            self._wrong.discard(uuid)
            log.warning("%s: its energy counter is believed again: %s", uuid, meter.counter_verdict)


def changed_uuids(before: Allocation | None, after: Allocation) -> Mapping[str, list[str]]:
    """What a second word about a running job changes: the GPUs it leaves and those it takes."""
    had = set(before.uuids) if before else set()
    return {
        "end": [uuid for uuid in (before.uuids if before else ()) if uuid not in after.uuids],
        "begin": [uuid for uuid in after.uuids if uuid not in had],
    }
