"""Plays a schedule through with given times per computation: when does each rank work, when does it wait? Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.errors import require
from training.planning.instructions import FORWARD, Compute
from training.planning.precedence import Precedence, schedule_precedence

DurationOf = Callable[[Compute], float]
"""Seconds that a computation takes."""


@dataclass(frozen=True, slots=True)
class Interval:
    compute: Compute
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Replay:
    intervals: tuple[tuple[Interval, ...], ...]
    """Per rank, in order; seconds since the step began."""

    makespan_s: float

    @property
    def busy_s(self) -> tuple[float, ...]:
        return tuple(sum(i.end_s - i.start_s for i in rank) for rank in self.intervals)

    @property
    def idle_s(self) -> tuple[float, ...]:
        return tuple(self.makespan_s - busy_s for busy_s in self.busy_s)

    @property
    def bubble_fraction(self) -> float:
        """Idle share of all ranks' time."""
        return sum(self.idle_s) / (len(self.intervals) * self.makespan_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Seconds of one micro-batch through each stage; usable as a DurationOf."""

    forward_s: tuple[float, ...]
    backward_s: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = f"{len(self.forward_s)} forward, {len(self.backward_s)} backward"
        require(len(self.forward_s) == len(self.backward_s) > 0, "stage times", lengths, "must be as many of each")

    def __call__(self, compute: Compute) -> float:
        return (self.forward_s if compute.direction is FORWARD else self.backward_s)[compute.stage]


def uniform(stages: int, *, forward_s: float, backward_s: float) -> StageTimes:
    return StageTimes(forward_s=(forward_s,) * stages, backward_s=(backward_s,) * stages)


def replay_schedule(
    schedule: str, ranks: int, micro_batches: int, times: StageTimes, *, exchange_s: float = 0.0
) -> Replay:
    """Raise ConfigError when `times` does not have one entry per stage (DualPipeV: two stages a rank)."""
    stages = 2 * ranks if schedule == "dualpipev" else ranks
    require(len(times.forward_s) == stages, "stage times", len(times.forward_s), f"must be one for each of {stages}")
    return replay(schedule_precedence(schedule, ranks, micro_batches), times, exchange_s=exchange_s)


def replay(graph: Precedence, duration_of: DurationOf, *, exchange_s: float = 0.0) -> Replay:
    """Everything begins as soon as it can. `exchange_s`: what an exchange takes once all its peers are there."""
    ends_s: list[float] = []
    intervals: list[list[Interval]] = [[] for _ in range(graph.ranks)]
    for instruction, rank, after in zip(graph.instructions, graph.rank, graph.after, strict=True):
        start_s = max((ends_s[earlier] for earlier in after), default=0.0)
        if isinstance(instruction, Compute):
            end_s = start_s + duration_of(instruction)
            intervals[rank].append(Interval(instruction, start_s, end_s))
        else:
            end_s = start_s + exchange_s
        ends_s.append(end_s)
    return Replay(tuple(map(tuple, intervals)), max(ends_s))
