"""When an instance whose job has a time limit is relieved: another one must serve before it ends. Pure."""

from __future__ import annotations


def leaves_soon(left_s: float | None, limit_s: float | None, *, notice_s: float) -> bool:
    """`left_s`: until Slurm ends the job; None: it sets no end. `notice_s`: what a relief takes to serve, and the one
    that leaves to finish. Never in the first half of a job's time: a limit below twice the notice would else have
    each instance relieved as soon as it serves."""
    if left_s is None:
        return False
    return left_s < notice_s and (limit_s is None or left_s < limit_s / 2)
