"""What one job draws, may draw, and allows us to do: mark, class, licence and its GPUs' readings together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slurm_power.monitoring.readings import NodeReading
from slurm_power.relocation.job_mark import JobMark, parse_mark
from slurm_power.relocation.jobs import Job, JobState, PowerClass
from slurm_power.relocation.runtimes import expected_end_wall_s, runtime_fraction
from slurm_power.relocation.settings import RelocationConfig

_NOT_WAITING_FOR_US = frozenset(
    {"Dependency", "DependencyNeverSatisfied", "JobHeldUser", "JobHeldAdmin", "JobArrayTaskLimit"}
)
_LIMITED_FRACTION = 0.9
"""A capped GPU that draws less than this share of its cap is not held back by it."""


@dataclass(frozen=True, slots=True)
class JobPower:
    job: Job
    mark: JobMark
    power_class: PowerClass  # FIRM for everything we must not touch
    license_name: str | None  # which of our two licences it holds
    licensed_watts: float
    gpu_watts: float  # its busiest GPU as if we did not cap it
    busy_gpus: float  # GPUs x their mean share of gpu_watts
    drawn_gpu_watts: float | None  # all its GPUs together now; None: not every one is known
    runtime_fraction: float = 1.0  # of its time limit, what it is expected to run
    lowest_cap_watts: float | None = None  # within its slowdown bound, where its own curve was measured

    @property
    def touchable(self) -> bool:
        return self.power_class is not PowerClass.FIRM

    @property
    def uncapped_watts(self) -> float:
        """All its GPUs if we did not cap them."""
        return self.busy_gpus * self.gpu_watts

    def end_wall_s(self, wall_s: float) -> float | None:
        """When it is expected to end if it runs, or would end if it started now; None: it has no time limit."""
        return expected_end_wall_s(self.job, wall_s=wall_s, fraction=self.runtime_fraction)

    @property
    def duration_s(self) -> float | None:
        """How long it is expected to run from its start."""
        return None if self.job.time_limit_s is None else self.runtime_fraction * self.job.time_limit_s


def job_powers(jobs: Sequence[Job], *, nodes: Mapping[str, NodeReading], config: RelocationConfig) -> list[JobPower]:
    """The jobs that run or wait, in the given order."""
    by_job: dict[int, list[float | None]] = {}
    for node in nodes.values():
        for gpu in node.gpus:
            if gpu.job_id is not None:
                by_job.setdefault(gpu.job_id, []).append(gpu.draw_watts)
    alive = (JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED)
    fraction = runtime_fraction(jobs)
    return [_job_power(job, by_job.get(job.job_id, []), fraction, config) for job in jobs if job.state in alive]


def is_waiting(power: JobPower) -> bool:
    """Pending, and not for a reason that has nothing to do with room (held, dependency)."""
    return power.job.state is JobState.PENDING and power.job.state_reason not in _NOT_WAITING_FOR_US


def nominal_gpu_watts(mark: JobMark, config: RelocationConfig) -> float:
    """What the job's licence counts per GPU."""
    highest = config.gpu_max_watts
    return min(highest, mark.request.gpu_cap_watts or highest, mark.foreseen_watts or highest)


def max_delay_s(power: JobPower, config: RelocationConfig) -> float:
    asked = power.mark.request.max_delay_s
    return config.default_max_delay_s if asked is None else asked


def idle_watts(powers: Sequence[JobPower], *, nodes: Mapping[str, NodeReading], config: RelocationConfig) -> float:
    """Draw of what no job occupies: free GPUs, and the free share of each node."""
    used: dict[str, float] = {}
    for power in powers:
        if power.job.state is not JobState.PENDING and power.job.node_names:
            share = power.job.gpus / len(power.job.node_names)
            for name in power.job.node_names:
                used[name] = used.get(name, 0.0) + share
    total = 0.0
    for name, node in nodes.items():
        gpus = len(node.gpus)
        free = max(0.0, gpus - used.get(name, 0.0))
        base = config.node_base_watts if node.base_watts is None else node.base_watts
        total += free * config.gpu_idle_watts + base * (free / gpus if gpus else 1.0)
    return total


def it_watts(powers: Sequence[JobPower], *, nodes: Mapping[str, NodeReading]) -> tuple[float, tuple[str, ...]]:
    """IT draw now, and the nodes that are unknown: jobs there count with their licence."""
    silent = {name for name, node in nodes.items() if node.draw_watts is None}
    total = sum(node.draw_watts or 0.0 for node in nodes.values())
    for power in powers:
        unknown = [name for name in power.job.node_names if name not in nodes or name in silent]
        if power.job.state is not JobState.PENDING and unknown:
            silent.update(unknown)
            total += power.licensed_watts * len(unknown) / len(power.job.node_names)
    return total, tuple(sorted(silent))


def _job_power(job: Job, drawn: Sequence[float | None], runtime_fraction: float, config: RelocationConfig) -> JobPower:
    mark = parse_mark(job.admin_comment)
    name = next((n for n in (config.firm_license_name, config.license_name) if n in job.licenses), None)
    nominal = nominal_gpu_watts(mark, config)
    licensed = float(job.licenses[name]) if name is not None else job.gpus * nominal + config.node_base_watts
    known = [watts for watts in drawn if watts is not None]
    complete = job.gpus > 0 and len(known) >= job.gpus
    gpu_watts, busy_gpus = nominal, float(job.gpus)
    if mark.capped_watts is not None and mark.drawn_watts is not None:
        gpu_watts = mark.drawn_watts
    if complete:
        busiest = max(*known, 1.0)
        busy_gpus = sum(known) / busiest
        limited = mark.capped_watts is not None and busiest >= _LIMITED_FRACTION * mark.capped_watts
        gpu_watts = max(busiest, gpu_watts) if limited else busiest
    return JobPower(
        job=job,
        mark=mark,
        power_class=(mark.request.power_class or config.default_class) if job.batch else PowerClass.FIRM,
        license_name=name,
        licensed_watts=licensed,
        gpu_watts=gpu_watts,
        busy_gpus=busy_gpus,
        drawn_gpu_watts=sum(known) if complete else None,
        runtime_fraction=runtime_fraction,
    )
