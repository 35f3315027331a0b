"""A small emulated cluster as the planner sees it: nodes of four GPUs, jobs with marks and licences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from slurm_power.ess.plan import PlanSlot
from slurm_power.monitoring.readings import GpuReading, NodeReading
from slurm_power.relocation.job_mark import JobMark, with_mark
from slurm_power.relocation.jobs import Job, JobState, LicenseReservation, PowerClass, PowerRequest
from slurm_power.relocation.plan import RelocationPlan
from slurm_power.relocation.planner import plan_relocation
from slurm_power.relocation.settings import RelocationConfig

NOW_S = 1_000_800.0
SLOT_S = 900.0

CONFIG = RelocationConfig(
    license_total_watts=13_200,
    gpu_max_watts=700.0,
    gpu_idle_watts=70.0,
    min_gpu_cap_watts=200.0,
    node_base_watts=500.0,
    cap_release_margin_watts=100.0,
)


def gpu_reading(node_name: str, index: int, draw_watts: float, job_id: int | None) -> GpuReading:
    return GpuReading(f"GPU-{node_name}-{index}", draw_watts, None, None, None, None, 700.0, "found", job_id)


@dataclass
class Cluster:
    """Four nodes x four GPUs; each running job gets GPUs in order and draws `gpu_watts` on each."""

    config: RelocationConfig = CONFIG
    node_count: int = 4
    jobs: list[Job] = field(default_factory=list)
    reservations: list[LicenseReservation] = field(default_factory=list)
    draws: dict[int, float] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    envelopes: Sequence[float] = (13_200.0,) * 16
    prices: Sequence[float] | None = None
    wall_s: float = NOW_S

    def add(
        self,
        job_id: int,
        *,
        power_class: PowerClass | None = PowerClass.FLEXIBLE,
        gpus: int = 4,
        running_on: Sequence[int] = (),
        gpu_watts: float = 700.0,
        limit_s: float | None = 3600.0,
        ran_s: float = 600.0,
        waited_s: float = 0.0,
        slowdown: float | None = None,
        delay_s: float | None = None,
        user_cap: float | None = None,
        **changes: Any,
    ) -> Job:
        firm = power_class is PowerClass.FIRM
        name = self.config.firm_license_name if firm else self.config.license_name
        watts = round(gpus * (user_cap or 700.0) + 500.0 * gpus / 4)
        mark = JobMark(PowerRequest(user_cap, None, power_class, slowdown, delay_s))
        job = Job(
            job_id=job_id,
            user_name="ann",
            uid=1000,
            name=f"job{job_id}",
            partition="main",
            state=JobState.RUNNING if running_on else JobState.PENDING,
            state_reason="None" if running_on else "Resources",
            gpus=gpus,
            node_names=tuple(f"n{i}" for i in running_on),
            submit_wall_s=self.wall_s - (ran_s if running_on else waited_s),
            begin_wall_s=None,
            start_wall_s=self.wall_s - ran_s if running_on else None,
            time_limit_s=limit_s,
            licenses={name: watts},
            batch=True,
            requeueable=True,
            admin_comment=with_mark("", mark),
        )
        job = replace(job, **changes)
        self.jobs.append(job)
        if running_on:
            self.draws[job_id] = gpu_watts
        return job

    def nodes(self) -> dict[str, NodeReading]:
        readings = {}
        for index in range(self.node_count):
            name = f"n{index}"
            gpus: list[GpuReading] = []
            for job in self.jobs:
                if name in job.node_names and job.state is JobState.RUNNING:
                    each = job.gpus // len(job.node_names)
                    gpus += [gpu_reading(name, len(gpus) + i, self.draws[job.job_id], job.job_id) for i in range(each)]
            gpus += [gpu_reading(name, i, 70.0, None) for i in range(len(gpus), 4)]
            readings[name] = NodeReading(name, 500.0, tuple(gpus), 0.0)
        return {name: node for name, node in readings.items() if name not in self.silent}

    def slots(self) -> list[PlanSlot]:
        prices = self.prices or [0.1] * len(self.envelopes)
        return [
            PlanSlot(NOW_S + i * SLOT_S, SLOT_S, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, envelope, price)
            for i, (envelope, price) in enumerate(zip(self.envelopes, prices, strict=True))
        ]

    def plan(self) -> RelocationPlan:
        return plan_relocation(
            jobs=self.jobs,
            slots=self.slots(),
            nodes=self.nodes(),
            reservations=self.reservations,
            wall_s=self.wall_s,
            config=self.config,
        )

    def apply(self, plan: RelocationPlan) -> None:
        """What Slurm and the agents would do with the plan: caps bind at once."""
        for action in plan.reservations:
            self.reservations = [r for r in self.reservations if r.name != action.reservation.name]
            if action.verb != "delete":
                self.reservations.append(action.reservation)
        for job_action in plan.jobs:
            index = next(i for i, job in enumerate(self.jobs) if job.job_id == job_action.job_id)
            job = self.jobs[index]
            if job_action.licenses is not None:
                job = replace(job, licenses=job_action.licenses)
            if job_action.admin_comment is not None:
                job = replace(job, admin_comment=job_action.admin_comment)
            if job_action.begin_wall_s is not None:
                job = replace(job, begin_wall_s=job_action.begin_wall_s, state_reason="BeginTime")
            if job_action.verb == "requeue":
                job = replace(job, state=JobState.PENDING, node_names=(), start_wall_s=None)
            self.jobs[index] = job


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="session")
def new_cluster() -> Callable[..., Cluster]:
    """For property tests, which need a fresh one per example."""
    return Cluster
