"""How long jobs really run, against the time limits their users asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slurm_power.relocation.jobs import Job, JobState

MIN_FINISHED = 10
"""With fewer finished jobs than this, time limits are believed."""

QUANTILE = 0.75
"""So many of the finished jobs ran no longer than the fraction we use: errors should be on the safe side."""


def runtime_fraction(jobs: Iterable[Job]) -> float:
    """Of its time limit, what a job is expected to run: a quantile over the finished jobs that Slurm still knows.

    1.0 with too few of them. Users ask for more than they need; planning with their limits would hold back work
    for a peak that never comes.
    """
    shares = sorted(
        min(1.0, (job.end_wall_s - job.start_wall_s) / job.time_limit_s)
        for job in jobs
        if job.raw_state == "COMPLETED"
        and job.start_wall_s is not None
        and job.end_wall_s is not None
        and job.time_limit_s
    )
    if len(shares) < MIN_FINISHED:
        return 1.0
    return max(0.01, shares[min(len(shares) - 1, int(QUANTILE * len(shares)))])


def expected_end_wall_s(job: Job, *, wall_s: float, fraction: float) -> float | None:
    """When the job ends if it runs now (or would if it started now); None: it has no time limit.

    A job that has outlived its expectation is given half of that expectation again, within its limit.
    """
    if job.time_limit_s is None:
        return None
    start_wall_s = wall_s if job.start_wall_s is None else job.start_wall_s
    expected_s = fraction * job.time_limit_s
    return min(start_wall_s + job.time_limit_s, max(start_wall_s + expected_s, wall_s + 0.5 * expected_s))


def typical_runtime_s(jobs: Sequence[Job]) -> float | None:
    """Median expected runtime of the jobs that run or wait; None without any that has a time limit."""
    fraction = runtime_fraction(jobs)
    alive = (JobState.PENDING, JobState.RUNNING)
    runtimes_s = sorted(fraction * job.time_limit_s for job in jobs if job.state in alive and job.time_limit_s)
    return runtimes_s[len(runtimes_s) // 2] if runtimes_s else None
