"""Serving jobs without Slurm: they wait, run, serve and end when a test says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ports.serving_jobs import Address, ServingJob


@dataclass
class FakeServingJobs:
    answers: bool = True
    refuses: str = ""
    """What sbatch says; empty: it takes jobs."""

    there: dict[int, ServingJob] = field(default_factory=dict)
    serving: dict[int, Address] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def jobs(self) -> Sequence[ServingJob]:
        self._ask()
        return list(self.there.values())

    def addresses(self) -> Sequence[Address]:
        self._ask()
        return list(self.serving.values())

    def start(self, pool: str, *, gpus: int) -> int:
        self._ask()
        if self.refuses:
            raise DeviceRefused(self.refuses)
        job_id = next(self._numbers)
        self.there[job_id] = ServingJob(job_id, pool, gpus, running=False, node="")
        return job_id

    def end(self, job_id: int) -> None:
        self._ask()
        self.ended.append(job_id)
        self.lose(job_id)

    def serve(self, job_id: int, url: str, token_file: str) -> None:
        """It runs, and says where."""
        self.there[job_id] = replace(self.there[job_id], running=True, node="n1")
        self.serving[job_id] = Address(job_id, url, token_file, "chat", ("large", "small"))

    def limit(self, job_id: int, *, left_s: float, limit_s: float) -> None:
        """Slurm will end it."""
        self.there[job_id] = replace(self.there[job_id], left_s=left_s, limit_s=limit_s)

    def lose(self, job_id: int) -> None:
        self.there.pop(job_id, None)
        self.serving.pop(job_id, None)

    def _ask(self) -> None:
        if not self.answers:
            raise Unavailable("slurmctld does not answer")
