"""What the scheduler knows that the load will follow: what runs, what waits, and for how long it asked. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from slurm_power.relocation.jobs import Job, JobState

QUEUE_FIELDS = ("running_gpus", "pending_gpus", "pending_jobs", "remaining_gpu_s", "pending_gpu_s")


def queue_state(jobs: Iterable[Job], *, wall_s: float) -> dict[str, float]:
    """By the names of QUEUE_FIELDS. GPU-seconds are by time limits; jobs without one count in the GPUs alone."""
    found = dict.fromkeys(QUEUE_FIELDS, 0.0)
    for job in jobs:
        if job.state is JobState.RUNNING:
            found["running_gpus"] += job.gpus
            if job.time_limit_s is not None and job.start_wall_s is not None:
                found["remaining_gpu_s"] += job.gpus * max(0.0, job.start_wall_s + job.time_limit_s - wall_s)
        elif job.state is JobState.PENDING:
            found["pending_gpus"] += job.gpus
            found["pending_jobs"] += 1
            found["pending_gpu_s"] += job.gpus * (job.time_limit_s or 0.0)
    return found
