"""What relocation decided: every action with its reason; nothing here is applied yet."""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.relocation.jobs import LicenseReservation

RESERVATION_PREFIX = "slurm_power_"
"""Names that start so are ours; all other reservations are left alone."""


@dataclass(frozen=True, slots=True)
class ReservationAction:
    verb: str  # "create" | "update" | "delete"
    reservation: LicenseReservation
    reason: str


@dataclass(frozen=True, slots=True)
class JobAction:
    """One job, one request to Slurm. What is None is left alone."""

    verb: str  # "defer" | "release" | "cap" | "uncap" | "requeue"
    job_id: int
    reason: str
    begin_wall_s: float | None = None
    licenses: dict[str, int] | None = None
    admin_comment: str | None = None
    gpu_cap_watts: float | None = None  # per GPU; None with "uncap"


@dataclass(frozen=True, slots=True)
class RelocationPlan:
    reservations: tuple[ReservationAction, ...] = ()
    jobs: tuple[JobAction, ...] = ()
    job_caps: tuple[tuple[int, float], ...] = ()
    """All caps that hold from now on, (job id, watts per GPU): the content of the leases."""
    shortfalls: tuple[str, ...] = ()
