"""Idle share of a run's steps in three ways: by formula, replayed with the stage times seen, and measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from job_wrappers.training.attempts import AttemptBegin
from training.parallel.plan import ParallelPlan
from training.planning.bubble import replayed_fraction
from training.planning.replay import Replay, StageTimes, replay_schedule
from training.run.listener import StepRecord

BACKWARD_SHARE = 2.0 / 3.0
"""Of a stage's busy time: a backward pass does twice the work of a forward pass."""

DRAWN_MICRO_BATCHES = 24
"""More only makes a picture of a step unreadable."""


@dataclass(frozen=True, slots=True)
class DrawnStep:
    """A replayed step to look at; with fewer micro-batches than the plan where those are many."""

    plan: ParallelPlan
    replay: Replay
    measured_step_s: float
    """Median, of the plan's full step."""

    @property
    def micro_batches(self) -> int:
        return min(self.plan.micro_batches, DRAWN_MICRO_BATCHES)


def usual_steps(begin: AttemptBegin, steps: Sequence[StepRecord]) -> tuple[ParallelPlan, list[StepRecord]]:
    """The micro-batch that most steps had, as a plan, and those steps: it may be changed while the job runs."""
    plan = ParallelPlan(**begin.plan)
    if not steps:
        return plan, []
    micro_sequences = statistics.mode(step.micro_sequences for step in steps)
    micro_batches = begin.global_sequences // (plan.data * micro_sequences)
    usual = [step for step in steps if step.micro_sequences == micro_sequences]
    return replace(plan, micro_sequences=micro_sequences, micro_batches=micro_batches), usual


def measured_bubble(steps: Sequence[StepRecord]) -> float | None:
    """Share of the ranks' time in which they did not compute: waiting, communication, and all else in a step."""
    shares = [statistics.fmean(step.busy_fraction_by_stage) for step in steps if step.busy_fraction_by_stage]
    return 1.0 - statistics.fmean(shares) if shares else None


def replayed_bubble(plan: ParallelPlan, steps: Sequence[StepRecord]) -> float | None:
    """The schedule played through with each stage's measured busy time: imbalance shows, communication does not."""
    times = stage_times(plan, steps)
    return None if times is None else replayed_fraction(plan.schedule, plan.pipeline, plan.micro_batches, times)


def drawn_step(plan: ParallelPlan, steps: Sequence[StepRecord]) -> DrawnStep | None:
    """None without a pipeline, and without measured times."""
    times = stage_times(plan, steps)
    if plan.pipeline == 1 or times is None:
        return None
    micro_batches = min(plan.micro_batches, DRAWN_MICRO_BATCHES)
    replay = replay_schedule(plan.schedule, plan.pipeline, micro_batches, times)
    return DrawnStep(plan, replay, statistics.median(step.step_s for step in steps))


def stage_times(plan: ParallelPlan, steps: Sequence[StepRecord]) -> StageTimes | None:
    """Of one micro-batch. A rank's busy time holds its share of the optimiser too. None when a stage's is not known."""
    ranks = plan.pipeline
    known = [step for step in steps if len(step.busy_fraction_by_stage) == ranks]
    if not known:
        return None
    busy_s = [
        statistics.fmean(step.busy_fraction_by_stage[rank] * step.step_s for step in known) for rank in range(ranks)
    ]
    if min(busy_s) <= 0.0:
        return None
    times = [seconds / plan.micro_batches for seconds in busy_s]
    if plan.chunks == 2:  # a rank holds stage r and stage 2p-1-r, and only their sum is known
        times = [times[min(stage, 2 * ranks - 1 - stage)] / 2 for stage in range(2 * ranks)]
    return StageTimes(
        forward_s=tuple(seconds * (1.0 - BACKWARD_SHARE) for seconds in times),
        backward_s=tuple(seconds * BACKWARD_SHARE for seconds in times),
    )
