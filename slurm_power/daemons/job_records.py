"""What Slurm says of each job, written down when it changes: users, accounts, starts and ends outlive slurmctld's
memory. One for each controller; it knows what it has written.
"""

from __future__ import annotations

from collections.abc import Iterable

from slurm_power.ports.telemetry_store import FieldValue, Point
from slurm_power.relocation.jobs import Job, JobState

AGAIN_S = 86_400.0
"""Jobs that still are there are written once a day, so that a reader need not look back for ever."""

_APART_S = 1e-6  # points of one moment would be one point


class JobRecorder:
    def __init__(self) -> None:
        self._written: dict[int, tuple[tuple[object, ...], float]] = {}

    def points(self, jobs: Iterable[Job], *, wall_s: float) -> list[Point]:
        """Of jobs that have started, what is new. Those that slurmctld has forgotten are forgotten here."""
        seen: dict[int, tuple[tuple[object, ...], float]] = {}
        due: list[Point] = []
        for job in jobs:
            if job.start_wall_s is None and job.state is not JobState.OTHER:
                continue
            words = (job.raw_state, job.start_wall_s, job.end_wall_s, job.account)
            written = self._written.get(job.job_id)
            if written is None or written[0] != words or not 0 <= wall_s - written[1] < AGAIN_S:
                due.append(job_point(job, wall_s=wall_s + len(due) * _APART_S))
                written = (words, wall_s)
            seen[job.job_id] = written
        self._written = seen
        return due


def job_point(job: Job, *, wall_s: float) -> Point:
    """Without tags: a job would be a series of its own."""
    fields: dict[str, FieldValue] = {
        "job_id": job.job_id,
        "uid": job.uid,
        "user_name": job.user_name,
        "account": job.account,
        "job_name": job.name,
        "partition": job.partition,
        "state": job.raw_state,
        "gpus": job.gpus,
        "nodes": job.node_count,
        "submit_wall_s": job.submit_wall_s,
    }
    for name, value in (("start_wall_s", job.start_wall_s), ("end_wall_s", job.end_wall_s)):
        if value is not None:
            fields[name] = value
    return Point("job", wall_s, fields)
