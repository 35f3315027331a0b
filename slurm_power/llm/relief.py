"""When instances whose jobs have a time limit are relieved: another one must serve before each ends. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeLeft:
    number: int
    left_s: float  # until Slurm ends the job
    limit_s: float | None  # of the job, from its start


def relief_starts(instances: Sequence[TimeLeft], *, each_s: float) -> dict[int, float]:
    """By number: seconds from now until its relief should start; below zero: since so long.

    As late as possible, but one after the other, each with `each_s` of its own: those that started together end
    together, and GPUs for all their reliefs at once are seldom free. Never in the first half of a job's time: a short
    limit would else have each instance relieved as soon as it serves.
    """
    found: dict[int, float] = {}
    next_s = math.inf
    for one in sorted(instances, key=lambda one: (-one.left_s, one.number)):
        next_s = min(one.left_s, next_s) - each_s
        half_s = math.inf if one.limit_s is None else one.limit_s / 2
        found[one.number] = max(next_s, one.left_s - half_s)
    return found
