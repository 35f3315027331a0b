"""Slurm jobs and nodes as the planner sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class PowerClass(StrEnum):
    """What a user allows us to do with a job."""

    FIRM = "firm"  # nothing
    FLEXIBLE = "flexible"  # delay and slow down, within the stated bounds
    PREEMPTIBLE = "preemptible"  # also requeue


class JobState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    OTHER = "OTHER"  # completing, finished, failed, ...: not ours to plan


@dataclass(frozen=True, slots=True)
class PowerRequest:
    """What the user asked for with the power options. None: not asked."""

    gpu_cap_watts: float | None = None
    gpu_clock_mhz: int | None = None
    power_class: PowerClass | None = None
    max_slowdown_fraction: float | None = None  # 0..0.9 of the throughput may be lost
    max_delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    job_id: int
    user_name: str
    uid: int
    name: str
    partition: str
    state: JobState
    state_reason: str  # as squeue says it: "None", "Resources", "Licenses", "BeginTime", ...
    gpus: int
    node_names: tuple[str, ...]
    submit_wall_s: float
    begin_wall_s: float | None  # earliest start (StartTime of a pending job); None where not set
    start_wall_s: float | None  # when it did start; None while pending
    time_limit_s: float | None  # None: unlimited
    licenses: Mapping[str, int]
    batch: bool
    requeueable: bool
    admin_comment: str
    raw_state: str = ""
    node_count: int = 1
    end_wall_s: float | None = None  # when it ended; None while it has not
    account: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    node_name: str
    gpus: int
    up: bool  # can run jobs
    state: str  # as Slurm says it

    @property
    def is_lost(self) -> bool:
        """Slurm cannot reach it, and no person took it out (drained, in maintenance)."""
        return not {"DOWN", "NOT_RESPONDING"}.isdisjoint(self.state.upper().replace("*", "").split("+"))


@dataclass(frozen=True, slots=True)
class LicensePool:
    name: str
    total: int
    used: int


@dataclass(frozen=True, slots=True)
class LicenseReservation:
    """Licences taken out of the pool for a while, so that Slurm plans around it."""

    name: str
    start_wall_s: float
    end_wall_s: float
    licenses: Mapping[str, int] = field(default_factory=dict)
