"""What happened while a run trained, as marks across its curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from job_wrappers.training.attempts import Attempt
from job_wrappers.training.report_style import BAD, GOOD, QUIET, THIRD
from training.run.listener import RunEvent


@dataclass(frozen=True, slots=True)
class Kind:
    words: str
    colour: str
    line: Any
    """matplotlib's linestyle: colour alone is not enough to tell kinds apart."""


RESTART = Kind("restart", GOOD, "--")
KINDS = {
    "power_signal": Kind("power signal", BAD, "-"),
    "micro_batch_changed": Kind("micro-batch changed", THIRD, "-."),
    "checkpoint_failed": Kind("checkpoint failed", BAD, ":"),
    "ramp_ended": Kind("ramp ended", QUIET, (0, (5, 5))),
}
"""By the kind of the event."""

CHECKPOINT = "checkpoint_saved"


@dataclass(frozen=True, slots=True)
class Mark:
    step: int
    at_unix_s: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Marks:
    lines: tuple[Mark, ...]
    checkpoints: tuple[tuple[int, float], ...]
    """Step and Unix time. They come often: points on the axis, not lines."""


def marks_of(attempts: Sequence[Attempt], events: Sequence[RunEvent]) -> Marks:
    restarts = [Mark(a.begin.resumed_from_step or 0, a.begin.began_at_unix_s, RESTART) for a in attempts[1:]]
    told = [Mark(event.step, event.at_unix_s, KINDS[event.kind]) for event in events if event.kind in KINDS]
    saved = tuple((event.step, event.at_unix_s) for event in events if event.kind == CHECKPOINT)
    return Marks((*restarts, *told), saved)


def draw_over_steps(axes: Axes, marks: Marks) -> None:
    _draw(axes, marks, lambda step, _: float(step))


def draw_over_minutes(axes: Axes, marks: Marks, *, start_unix_s: float) -> None:
    _draw(axes, marks, lambda _, at_unix_s: (at_unix_s - start_unix_s) / 60.0)


def legend_handles(marks: Marks) -> list[Line2D]:
    """Of those kinds that there are."""
    kinds = dict.fromkeys(mark.kind for mark in marks.lines)
    handles = [Line2D([], [], color=k.colour, linestyle=k.line, linewidth=1.0, label=k.words) for k in kinds]
    if marks.checkpoints:
        handles.append(Line2D([], [], color=QUIET, marker="^", linestyle="none", markersize=4, label="checkpoint"))
    return handles


def _draw(axes: Axes, marks: Marks, place: Callable[[int, float], float]) -> None:
    for mark in marks.lines:
        at = place(mark.step, mark.at_unix_s)
        axes.axvline(at, color=mark.kind.colour, linewidth=1.0, linestyle=mark.kind.line)
    at_checkpoints = [place(step, at_unix_s) for step, at_unix_s in marks.checkpoints]
    if at_checkpoints:
        axes.plot(
            at_checkpoints,
            [0.02] * len(at_checkpoints),
            transform=axes.get_xaxis_transform(),
            color=QUIET,
            marker="^",
            markersize=4,
            linestyle="none",
        )
