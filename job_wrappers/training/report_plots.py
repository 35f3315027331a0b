"""A run's curves as inline SVG. Every axis has its unit; times are local, with their zone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from job_wrappers.training.attempts import Attempt
from job_wrappers.training.report_energy import joules_per_token_curve, watts_curve
from job_wrappers.training.report_figures import steps_by_attempt
from job_wrappers.training.report_marks import Marks, draw_over_minutes, draw_over_steps, legend_handles
from job_wrappers.training.report_style import (
    CURVES,
    FIRST,
    SECOND,
    THIRD,
    from_zero,
    second_axis,
    styled,
    whole_steps,
)
from job_wrappers.training.words import local_time
from slurm_power.cli.report_style import as_svg, new_axes
from training.run.listener import StepRecord

MAX_POINTS = 1500
"""More than this on a curve only makes the page heavy: neighbours are averaged."""

TOKEN_WINDOW_S = 2.0
STEP = "step"

Value = Callable[[StepRecord], float | None]


@styled()
def loss_plot(steps: Sequence[StepRecord], marks: Marks) -> str:
    figure, axes = new_axes("Loss", "nats per token", STEP)
    _curve(axes, steps, lambda step: step.loss, FIRST, "training")
    held_out = [(float(step.step), step.held_out_loss) for step in steps if step.held_out_loss is not None]
    if held_out:
        axes.plot(*_columns(held_out), marker="o", markersize=4, color=SECOND, label="held-out text")
    draw_over_steps(axes, marks)
    whole_steps(axes)
    curves, _ = axes.get_legend_handles_labels()
    figure.legend(handles=[*curves, *legend_handles(marks)], loc="outside lower center", ncols=3)
    return as_svg(figure, "Training and held-out loss over the steps", "loss")


@styled()
def speed_plot(steps: Sequence[StepRecord], marks: Marks) -> str:
    figure, axes = new_axes("Speed", "tokens/s", STEP)
    durations = second_axis(axes, "s/step", left=FIRST, right=SECOND)
    _curve(axes, steps, lambda step: step.tokens_per_s, FIRST, "tokens/s")
    _curve(durations, steps, lambda step: step.step_s, SECOND, "s/step")
    from_zero(axes, durations)
    draw_over_steps(axes, marks)
    whole_steps(axes)
    return as_svg(figure, "Tokens a second and seconds a step over the steps", "speed")


@styled()
def busy_plot(steps: Sequence[StepRecord], marks: Marks) -> str:
    figure, axes = new_axes("Busy share of each pipeline stage; micro-batch", "share of the step", STEP)
    batches = second_axis(axes, "sequences a micro-batch", left=CURVES[0], right=THIRD)
    stages = max((len(step.busy_fraction_by_stage) for step in steps), default=0)
    for stage in range(stages):
        style = "-" if stage < len(CURVES) else "--"
        _curve(axes, steps, _busy_of(stage), CURVES[stage % len(CURVES)], f"stage {stage}", line=style)
    micro = thinned([(float(step.step), float(step.micro_sequences)) for step in steps])
    batches.step(*_columns(micro), where="mid", color=THIRD, alpha=0.6, linestyle=":")
    axes.set_ylim(0, 1.05)
    from_zero(batches)
    whole_steps(batches)
    batches.yaxis.get_major_locator().set_params(integer=True)
    draw_over_steps(axes, marks)
    if stages:
        figure.legend(handles=axes.get_legend_handles_labels()[0], loc="outside lower center", ncols=5)
    return as_svg(figure, "Busy share of each pipeline stage and size of a micro-batch over the steps", "busy")


@styled()
def power_plot(attempts: Sequence[Attempt], steps: Sequence[StepRecord], marks: Marks) -> str | None:
    """None when no attempt's energy is known."""
    traces = [attempt.trace for attempt in attempts if len(attempt.trace) > 1]
    if not traces:
        return None
    start_s = attempts[0].begin.began_at_unix_s
    figure, axes = new_axes("Power of all the job's GPUs", "W", f"minutes since {local_time(start_s)}")
    per_token = second_axis(axes, "J/token", left=FIRST, right=SECOND)
    for trace in traces:
        at_s, watts = watts_curve(trace, points=MAX_POINTS)
        axes.step([(at - start_s) / 60.0 for at in at_s], watts, where="pre", color=FIRST)
    for attempt, own in zip(attempts, steps_by_attempt(attempts, steps), strict=True):
        points = joules_per_token_curve(attempt.trace, own, window_s=TOKEN_WINDOW_S)
        if points:
            minutes = thinned([((at - start_s) / 60.0, joules) for at, joules in points])
            per_token.plot(*_columns(minutes), color=SECOND)
    from_zero(axes, per_token)
    draw_over_minutes(axes, marks, start_unix_s=start_s)
    return as_svg(figure, "Power of the job and energy of a token over time", "power")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS: means of neighbours."""
    size = -(-len(points) // MAX_POINTS)
    if size <= 1:
        return list(points)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _busy_of(stage: int) -> Value:
    return lambda step: step.busy_fraction_by_stage[stage] if stage < len(step.busy_fraction_by_stage) else None


def _curve(axes: Axes, steps: Sequence[StepRecord], value: Value, colour: str, label: str, *, line: str = "-") -> None:
    points = [(float(step.step), found) for step in steps if (found := value(step)) is not None]
    if points:
        axes.plot(*_columns(thinned(points)), color=colour, label=label, linestyle=line)
