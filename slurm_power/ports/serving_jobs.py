"""The serving jobs of one pool manager: found again by their mark, whoever started them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ServingJob:
    job_id: int
    pool: str
    gpus: int
    running: bool  # else it waits for its node
    node: str  # "" while it waits
    left_s: float | None = None  # until Slurm ends it, None: never
    limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a serving job answers, and the file with the token that steers it."""

    job_id: int
    url: str
    token_file: str
    public_name: str
    models: tuple[str, ...]


class ServingJobs(Protocol):
    """Every method raises Unavailable when there is no answer in time, DeviceRefused when Slurm says no."""

    def jobs(self) -> Sequence[ServingJob]:
        """Ours that wait or run; those that end no longer."""
        ...

    def addresses(self) -> Sequence[Address]:
        """Of jobs that serve already; some may have died since."""
        ...

    def start(self, pool: str, *, gpus: int) -> int:
        """The new job's number."""
        ...

    def end(self, job_id: int) -> None:
        """Let it finish what runs, then end. No error if it is gone."""
        ...
