"""A run's curves as inline SVG. Every axis has its unit; times are local, with their zone."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from job_wrappers.training.attempts import Attempt, Trace
from job_wrappers.training.summary import joules_per_token_curve, steps_by_attempt
from training.run.listener import RunEvent, StepRecord

MAX_POINTS = 1500
"""More than this on a curve only makes the page heavy: neighbours are averaged."""

MARKED = {
    "resumed": "#117a65",
    "power_signal": "#c0392b",
    "micro_batch_changed": "#7d3c98",
    "checkpoint_failed": "#c0392b",
    "checkpoint_saved": "#aab7b8",
}
CURVE, SECOND = "#2471a3", "#d68910"
STEP = "step"

Value = Callable[[StepRecord], float | None]


def loss_plot(steps: Sequence[StepRecord], events: Sequence[RunEvent]) -> str:
    figure, axes = _axes("Loss", "nats per token", STEP)
    _curve(axes, steps, lambda step: step.loss, CURVE, "training")
    held_out = [(float(step.step), step.held_out_loss) for step in steps if step.held_out_loss is not None]
    if held_out:
        axes.plot(*_columns(held_out), marker="o", markersize=3, color=SECOND, label="held-out text")
    _mark(axes, events)
    axes.legend(loc="upper right")
    return _svg(figure)


def speed_plot(steps: Sequence[StepRecord], events: Sequence[RunEvent]) -> str:
    figure, axes = _axes("Speed", "tokens/s", STEP, CURVE)
    _curve(axes, steps, lambda step: step.tokens_per_s, CURVE, "tokens/s")
    axes.set_ylim(bottom=0)
    durations = axes.twinx()
    _curve(durations, steps, lambda step: step.step_s, SECOND, "s/step")
    durations.set_ylabel("s/step", color=SECOND)
    durations.set_ylim(bottom=0)
    _mark(axes, events)
    return _svg(figure)


def busy_plot(steps: Sequence[StepRecord], events: Sequence[RunEvent]) -> str:
    figure, axes = _axes("Busy share of each pipeline stage, and the micro-batch", "share of the step", STEP)
    for stage in range(max((len(step.busy_fraction_by_stage) for step in steps), default=0)):
        _curve(axes, steps, _busy_of(stage), None, f"stage {stage}")
    axes.set_ylim(0, 1.05)
    axes.legend(loc="lower right", ncols=4)
    batches = axes.twinx()
    batches.step(
        [step.step for step in steps], [step.micro_sequences for step in steps], where="mid", color="#7d3c98", alpha=0.5
    )
    batches.set_ylabel("micro-batch, sequences", color="#7d3c98")
    batches.set_ylim(bottom=0)
    _mark(axes, events)
    return _svg(figure)


def power_plot(attempts: Sequence[Attempt], steps: Sequence[StepRecord], events: Sequence[RunEvent]) -> str | None:
    """None when no attempt's energy is known."""
    traces = [attempt.trace for attempt in attempts if len(attempt.trace) > 1]
    if not traces:
        return None
    start_s = attempts[0].begin.began_at_unix_s
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(start_s))
    figure, axes = _axes("Power of all GPUs of the job, and energy of a token", "W", f"minutes since {since}")
    for trace in traces:
        at_s, watts = watts_of(trace)
        axes.step([(at - start_s) / 60.0 for at in at_s], watts, where="pre", color=CURVE)
    axes.set_ylim(bottom=0)
    per_token = axes.twinx()
    for attempt, own in zip(attempts, steps_by_attempt(attempts, steps), strict=True):
        points = joules_per_token_curve(attempt.trace, own, window_s=2.0)
        if points:
            per_token.plot(*_columns([((at - start_s) / 60.0, joules) for at, joules in points]), color=SECOND)
    per_token.set_ylabel("J/token", color=SECOND)
    per_token.set_ylim(bottom=0)
    for event in events:
        if event.kind in MARKED:
            axes.axvline((event.at_unix_s - start_s) / 60.0, color=MARKED[event.kind], linewidth=0.8, linestyle=":")
    return _svg(figure)


def watts_of(trace: Trace) -> tuple[list[float], list[float]]:
    """Mean power between readings at least a second apart: a counter that stood still for a moment is no zero power."""
    at_s, watts = [], []
    (last_s, last_joules), shortest_s = trace[0], max(1.0, (trace[-1][0] - trace[0][0]) / MAX_POINTS)
    for now_s, joules in trace[1:]:
        if now_s - last_s >= shortest_s or now_s == trace[-1][0] > last_s:
            at_s.append(now_s)
            watts.append((joules - last_joules) / (now_s - last_s))
            last_s, last_joules = now_s, joules
    return at_s, watts


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


def _curve(axes: Axes, steps: Sequence[StepRecord], value: Value, colour: str | None, label: str) -> None:
    points = [(float(step.step), found) for step in steps if (found := value(step)) is not None]
    if points:
        axes.plot(*_columns(thinned(points)), color=colour, label=label, linewidth=1.2)


def _mark(axes: Axes, events: Sequence[RunEvent]) -> None:
    for event in events:
        if event.kind in MARKED:
            axes.axvline(event.step, color=MARKED[event.kind], linewidth=0.8, linestyle=":")


def _axes(title: str, unit: str, below: str, colour: str = "black") -> tuple[Figure, Any]:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_ylabel(unit, color=colour)
    axes.set_xlabel(below)
    if below == STEP:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element, without the XML prologue (it stands inside HTML)."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
