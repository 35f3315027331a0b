"""How much of a step pipeline ranks idle: by formula, replayed with the stage times seen, and measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.errors import require
from training.planning.bubble_formula import formula_fraction
from training.planning.replay import StageTimes
from training.planning.steady import makespan_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BubbleReport:
    """Idle shares of a step, all ranks together."""

    schedule: str
    ranks: int
    micro_batches: int
    formula_fraction: float
    """Equal stages, free communication."""

    replay_fraction: float | None
    """The schedule played through with measured stage times: what it has more than the formula is imbalance."""

    measured_fraction: float | None
    """1 - busy time / (ranks x step): what it has more than the replay is communication, optimizer and overhead."""

    def text(self) -> str:
        """One line for a person."""
        shares = (
            ("formula", self.formula_fraction),
            ("replayed", self.replay_fraction),
            ("measured", self.measured_fraction),
        )
        known = ", ".join(f"{name} {'not known' if share is None else f'{share:.1%}'}" for name, share in shares)
        return f"bubble ({self.schedule}, {self.ranks} ranks, {self.micro_batches} micro-batches): {known}"


def bubble_report(
    schedule: str,
    ranks: int,
    micro_batches: int,
    *,
    stage_times: StageTimes | None = None,
    busy_s: Sequence[float] | None = None,
    step_s: float | None = None,
) -> BubbleReport:
    """`stage_times`: measured, per stage. `busy_s`: what each pipeline rank computed in a step of `step_s`, the mean
    over the ranks beside it. What is not given is not known. Raise ConfigError for figures that do not fit together."""
    backward_per_forward = 2.0
    if stage_times is not None:
        backward_per_forward = sum(stage_times.backward_s) / sum(stage_times.forward_s)
    return BubbleReport(
        schedule=schedule,
        ranks=ranks,
        micro_batches=micro_batches,
        formula_fraction=formula_fraction(schedule, ranks, micro_batches, backward_per_forward=backward_per_forward),
        replay_fraction=None if stage_times is None else replayed_fraction(schedule, ranks, micro_batches, stage_times),
        measured_fraction=None if busy_s is None or step_s is None else measured_fraction(busy_s, step_s, ranks),
    )


def replayed_fraction(schedule: str, ranks: int, micro_batches: int, times: StageTimes) -> float:
    work_s = micro_batches * (sum(times.forward_s) + sum(times.backward_s))
    return 1.0 - work_s / (ranks * makespan_s(schedule, ranks, micro_batches, times))


def measured_fraction(busy_s: Sequence[float], step_s: float, ranks: int) -> float:
    """Raise ConfigError for another number of busy times than ranks, or a rank busy for longer than the step."""
    require(len(busy_s) == ranks, "busy times", len(busy_s), f"must be one for each of {ranks} ranks")
    require(step_s > 0, "step_s", step_s, "must be positive")
    # Clocks of two ranks may differ a little at the step's ends.
    require(max(busy_s) <= 1.01 * step_s, "busy_s", max(busy_s), f"must be within the step's {step_s:g} s")
    return max(0.0, 1.0 - sum(busy_s) / (ranks * step_s))
