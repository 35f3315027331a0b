"""Bytes that a step hands to sends and collectives, counted beside what the plan's formula says. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job_wrappers.training.attempts import AttemptBegin
from training.errors import ConfigError
from training.model.config import ModelConfig
from training.parallel.plan import ParallelPlan
from training.planning.volume import bytes_per_step
from training.precision import policy
from training.run.listener import StepRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisBytes:
    """What one step hands to the sends and collectives of an axis, all ranks together."""

    axis: str
    measured_bytes: float | None
    """Mean over the steps with the usual micro-batch; the attempt's first step, which also agrees on shapes, is left
    out. None: the counters do not know this axis."""

    formula_bytes: float | None
    measured_per_formula: float | None


def traffic_of(begin: AttemptBegin, plan: ParallelPlan, steps: Sequence[StepRecord]) -> tuple[AxisBytes, ...]:
    """`steps`: of an attempt, those with the micro-batch of `plan`."""
    formula, steps = _formula(begin, plan), _without_first(begin, steps)
    measured = {
        axis: statistics.fmean(step.bytes_by_axis.get(axis, 0.0) for step in steps)
        for axis in {axis for step in steps for axis in step.bytes_by_axis}
    }
    axes = sorted({*formula, *(axis for axis, size in measured.items() if size > 0)})
    return tuple(
        AxisBytes(
            axis=axis,
            measured_bytes=measured.get(axis),
            formula_bytes=formula.get(axis),
            measured_per_formula=measured[axis] / formula[axis] if axis in measured and formula.get(axis) else None,
        )
        for axis in axes
    )


def _formula(begin: AttemptBegin, plan: ParallelPlan) -> Mapping[str, float]:
    """The attempt stated it for the micro-batch that it began with. Empty for a model that this version cannot read."""
    if plan == ParallelPlan(**begin.plan):
        return begin.bytes_formula_by_axis
    try:
        model = ModelConfig.from_hf(dict(begin.model))
        return bytes_per_step(plan, model, begin.sequence_length_tokens, policy(begin.policy))
    except ConfigError:
        return {}


def _without_first(begin: AttemptBegin, steps: Sequence[StepRecord]) -> Sequence[StepRecord]:
    """In an attempt's first step ranks also agree on shapes."""
    first = 1 + (begin.resumed_from_step or 0)
    return [step for step in steps if step.step != first] or steps
