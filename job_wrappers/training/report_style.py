"""What the pictures of a training run need beyond the style of all reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from slurm_power.cli import report_style
from slurm_power.cli.report_style import PLACEHOLDERS

PAPER, QUIET, BAD = (PLACEHOLDERS[name] for name in ("paper", "quiet", "bad"))
CURVES = tuple(PLACEHOLDERS[name] for name in ("first", "second", "fourth", "fifth", "third"))
FIRST, SECOND, GOOD, _, THIRD = CURVES

WIDE_INCHES = 13.0


@contextmanager
def styled() -> Iterator[None]:
    """Around everything that draws."""
    with report_style.styled(PLACEHOLDERS):
        yield


def second_axis(axes: Axes, unit: str, *, left: str, right: str) -> Any:
    """Another unit on the right; each side's words have the colour of its curve."""
    axes.yaxis.label.set_color(left)
    other = axes.twinx()
    other.set_ylabel(unit, color=right)
    other.spines.right.set_visible(True)
    return other


def from_zero(*axes: Axes) -> None:
    """After everything is drawn; with some room above the highest value."""
    for each in axes:
        each.set_ylim(0, 1.05 * each.get_ylim()[1])


def whole_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
