"""Draws one replayed step of a pipeline: who computes when, and where ranks wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from job_wrappers.training.report_bubbles import DrawnStep
from job_wrappers.training.report_style import (
    FIRST,
    GOOD,
    PAPER,
    QUIET,
    SECOND,
    THIRD,
    WIDE_INCHES,
    styled,
)
from slurm_power.cli.report_style import as_svg, new_axes
from training.planning.instructions import BACKWARD, FORWARD, Pass
from training.planning.replay import Interval

COLOURS = ({FORWARD: FIRST, BACKWARD: SECOND}, {FORWARD: GOOD, BACKWARD: THIRD})
"""On the way out, and with DualPipeV on the way back."""

LABELLED_PASSES = 48
"""On one rank; narrower blocks have no room for a number."""

FARTHEST = 2.0
"""A measured step longer than this many replayed ones would squeeze the picture: it is told in words only."""


@styled()
def timeline_plot(drawn: DrawnStep) -> str:
    unit, factor = ("ms", 1e3) if drawn.replay.makespan_s < 1.0 else ("s", 1.0)
    height = 1.5 + 0.38 * len(drawn.replay.intervals)
    below = f"{unit} since the step began"
    figure, axes = new_axes(_title(drawn), "", below, size_inches=(WIDE_INCHES, height))
    for rank, intervals in enumerate(drawn.replay.intervals):
        for chunk in range(drawn.plan.chunks):
            for direction, colour in COLOURS[chunk].items():
                _blocks(axes, rank, _of(intervals, direction, chunk, drawn), factor, colour)
        if len(intervals) <= LABELLED_PASSES:
            _numbers(axes, rank, intervals, factor)
    axes.set_yticks(range(len(drawn.replay.intervals)), _names(drawn))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    end_s = _measured_end(axes, drawn, factor) or drawn.replay.makespan_s
    axes.set_xlim(0, 1.01 * end_s * factor)
    figure.legend(handles=_legend(drawn), loc="outside lower center", ncols=5)
    return as_svg(figure, "Forward and backward passes of each pipeline rank over one replayed step", "pipeline")


def caption(drawn: DrawnStep) -> str:
    parts = [
        "The schedule played through with each stage's mean busy time; forward and backward passes share it 1 to 2. "
        "Numbers are micro-batches; what is empty is the bubble."
    ]
    if drawn.micro_batches < drawn.plan.micro_batches:
        parts.append(
            f"Drawn with {drawn.micro_batches} of {drawn.plan.micro_batches} micro-batches: with all of them the "
            "bubble's share is smaller."
        )
    else:
        parts.append(
            f"The replay takes {drawn.replay.makespan_s:.3g} s, a measured step {drawn.measured_step_s:.3g} s: "
            "communication and overhead make the difference."
        )
    return " ".join(parts)


def _title(drawn: DrawnStep) -> str:
    plan = drawn.plan
    idle = f"{drawn.replay.bubble_fraction:.1%} idle"
    return f"{plan.schedule}, {plan.pipeline} ranks, {drawn.micro_batches} micro-batches: {idle}"


def _of(intervals: Sequence[Interval], direction: Pass, chunk: int, drawn: DrawnStep) -> list[Interval]:
    return [
        i for i in intervals if i.compute.direction is direction and (i.compute.stage >= drawn.plan.pipeline) == chunk
    ]


def _blocks(axes: Any, rank: int, intervals: Sequence[Interval], factor: float, colour: str) -> None:
    spans = [(i.start_s * factor, (i.end_s - i.start_s) * factor) for i in intervals]
    axes.broken_barh(spans, (rank - 0.4, 0.8), facecolor=colour, edgecolor=PAPER, linewidth=0.8)


def _numbers(axes: Any, rank: int, intervals: Sequence[Interval], factor: float) -> None:
    for i in intervals:
        middle = 0.5 * (i.start_s + i.end_s) * factor
        axes.text(middle, rank, str(i.compute.micro_batch), ha="center", va="center", fontsize=8, color=PAPER)


def _names(drawn: DrawnStep) -> list[str]:
    ranks = drawn.plan.pipeline
    if drawn.plan.chunks == 1:
        return [f"stage {rank}" for rank in range(ranks)]
    return [f"stages {rank}, {2 * ranks - 1 - rank}" for rank in range(ranks)]


def _measured_end(axes: Any, drawn: DrawnStep, factor: float) -> float | None:
    """Where a measured step ends, if all of it is drawn and it fits."""
    replayed_s, measured_s = drawn.replay.makespan_s, drawn.measured_step_s
    if drawn.micro_batches < drawn.plan.micro_batches or not replayed_s < measured_s < FARTHEST * replayed_s:
        return None
    axes.axvline(measured_s * factor, color=QUIET, linestyle="--")
    return measured_s


def _legend(drawn: DrawnStep) -> list[Any]:
    ways = ("",) if drawn.plan.chunks == 1 else (", way out", ", way back")
    handles: list[Any] = [
        Patch(facecolor=colour, label=f"{direction}{way}")
        for way, colours in zip(ways, COLOURS, strict=False)
        for direction, colour in colours.items()
    ]
    handles.append(Line2D([], [], color=QUIET, linestyle="--", label="end of a measured step"))
    return handles
