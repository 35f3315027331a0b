"""Chooses GPU clocks for a pipeline: passes with slack run slower, the step stays as long as it was. Pure.

After Perseus (SOSP'24): uneven stages and the pipeline's ends leave slack inside a step, a slower pipeline elsewhere
(a straggler) leaves slack at its end. Only passes are planned; reducing and optimizer take the same either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from training.errors import require
from training.planning.clock_profiles import ClockProfile, OperatingPoint
from training.planning.instructions import Compute
from training.planning.precedence import Precedence, schedule_precedence
from training.planning.slack import length_s

ROUNDING = 1e-9
"""Relative; sums of the same times in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyTask:
    schedule: str
    ranks: int
    micro_batches: int
    profile: ClockProfile
    exchange_s: float = 0.0
    tolerance_fraction: float = 0.0
    """How much longer than at the highest clocks the step may be."""

    straggler_fraction: float = 0.0
    """How much longer another pipeline takes, for which this one must wait at the end of each step."""

    def __post_init__(self) -> None:
        for key in ("exchange_s", "tolerance_fraction", "straggler_fraction"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "must not be negative")

    @property
    def graph(self) -> Precedence:
        return schedule_precedence(self.schedule, self.ranks, self.micro_batches)


Choice = Mapping[Compute, OperatingPoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyPlan:
    """Clocks for the passes of one step, and what they are predicted to save. Joules: all ranks of one pipeline."""

    clock_mhz: Mapping[Compute, int]
    rank_clock_mhz: tuple[int, ...] | None
    """One for each rank where it is the same for all of its passes."""

    step_s: float
    all_max_step_s: float
    """At the highest clocks, the straggler's wait included."""

    joules: float
    all_max_joules: float
    proven_best: bool
    """No other choice of this kind saves more."""

    @property
    def saved_joules(self) -> float:
        return self.all_max_joules - self.joules

    @property
    def saved_fraction(self) -> float:
        return self.saved_joules / self.all_max_joules

    def text(self) -> str:
        """One line for a person."""
        kind = "one clock a pass" if self.rank_clock_mhz is None else "one clock a rank"
        longer = self.step_s / self.all_max_step_s - 1.0
        return (
            f"clocks ({kind}): {self.saved_joules:.3g} J of {self.all_max_joules:.3g} J a step saved "
            f"({self.saved_fraction:.1%}), step {self.step_s:.4g} s ({longer:+.2%})"
        )


def clocks_of_rank(plan: FrequencyPlan, task: FrequencyTask, rank: int) -> tuple[int, ...]:
    """In the order in which the rank computes: what a listener sets before each pass."""
    graph = task.graph
    return tuple(
        plan.clock_mhz[instruction]
        for instruction, of_rank in zip(graph.instructions, graph.rank, strict=True)
        if of_rank == rank and isinstance(instruction, Compute)
    )


def clock_changes(plan: FrequencyPlan, task: FrequencyTask) -> int:
    """In one step, over all ranks. A change takes a GPU some milliseconds, which no profile holds."""
    return sum(
        before != after for rank in range(task.ranks) for before, after in pairwise(clocks_of_rank(plan, task, rank))
    )


def fastest_choice(task: FrequencyTask) -> dict[Compute, OperatingPoint]:
    """Raise ConfigError for a stage that was not profiled."""
    return {c: task.profile.fastest(c) for c in task.graph.instructions if isinstance(c, Compute)}


def durations_s(task: FrequencyTask, time_of: Callable[[Compute], float]) -> list[float]:
    """Of every instruction of the graph."""
    return [
        time_of(instruction) if isinstance(instruction, Compute) else task.exchange_s
        for instruction in task.graph.instructions
    ]


def choice_length_s(task: FrequencyTask, choice: Choice) -> float:
    return length_s(task.graph, durations_s(task, lambda compute: choice[compute].time_s))


def deadline_s(task: FrequencyTask) -> float:
    """When the last pass must be over."""
    all_max_s = choice_length_s(task, fastest_choice(task))
    return all_max_s * (1.0 + task.straggler_fraction) * (1.0 + task.tolerance_fraction)


def judged(
    task: FrequencyTask, choice: Choice, *, rank_clock_mhz: tuple[int, ...] | None = None, proven_best: bool = False
) -> FrequencyPlan:
    """The plan that `choice` makes: replayed, and compared with the highest clocks."""
    fastest = fastest_choice(task)
    others_s = choice_length_s(task, fastest) * (1.0 + task.straggler_fraction)
    step_s = max(others_s, choice_length_s(task, choice))
    return FrequencyPlan(
        clock_mhz={compute: point.clock_mhz for compute, point in choice.items()},
        rank_clock_mhz=rank_clock_mhz,
        step_s=step_s,
        all_max_step_s=others_s,
        joules=_joules(task, choice, step_s),
        all_max_joules=_joules(task, fastest, others_s),
        proven_best=proven_best,
    )


def _joules(task: FrequencyTask, choice: Choice, step_s: float) -> float:
    waiting_s = task.ranks * step_s - sum(point.time_s for point in choice.values())
    return sum(point.energy_joules for point in choice.values()) + task.profile.waiting_watts * waiting_s
