"""How the report's pictures look. They are drawn in placeholder colours that become the page's CSS variables, so that
one picture serves a light page, a dark one and paper."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PALETTE = {
    "ink": ("#1c2833", "#e6e9ec"),
    "paper": ("#ffffff", "#14181d"),
    "line": ("#d5d8dc", "#3a434c"),
    "quiet": ("#6b7780", "#9aa5ae"),
    "first": ("#1f6fb2", "#6cb2f0"),
    "second": ("#b8640a", "#f0a44b"),
    "third": ("#7d3c98", "#c79be0"),
    "fourth": ("#117a65", "#4fc3a1"),
    "fifth": ("#5b6b1e", "#b5c46a"),
    "bad": ("#c0392b", "#f07f72"),
}
"""CSS variables: in light (and on paper), in the dark."""

LIGHT_PALETTE = "".join(f"--{name}:{light};" for name, (light, _) in PALETTE.items())
DARK_PALETTE = "".join(f"--{name}:{dark};" for name, (_, dark) in PALETTE.items())

_PLACEHOLDERS = {name: f"#0102{number:02x}" for number, name in enumerate(PALETTE)}
INK, PAPER, QUIET, BAD = (_PLACEHOLDERS[name] for name in ("ink", "paper", "quiet", "bad"))
CURVES = tuple(_PLACEHOLDERS[name] for name in ("first", "second", "fourth", "fifth", "third"))
FIRST, SECOND, GOOD, _, THIRD = CURVES

_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), "none"),
    "grid.color": INK,
    "grid.alpha": 0.15,
    "font.size": 11.0,
    "axes.titlesize": 12.0,
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "lines.linewidth": 1.4,
    "svg.fonttype": "path",  # looks the same wherever the page is opened
    "svg.hashsalt": "slurm-power",  # ids inside the picture, the same every time
}

SIZE_INCHES, WIDE_INCHES = (5.8, 3.1), (13.0, 3.0)


@contextmanager
def styled() -> Iterator[None]:
    """Around everything that draws."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_axes(
    title: str, unit: str, below: str, *, size_inches: tuple[float, float] = SIZE_INCHES
) -> tuple[Figure, Any]:
    figure = Figure(figsize=size_inches, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.set_ylabel(unit)
    axes.set_xlabel(below)
    axes.grid(visible=True)
    return figure, axes


def second_axis(axes: Axes, unit: str, *, left: str, right: str) -> Any:
    """Another unit on the right; each side's words have the colour of its curve."""
    axes.yaxis.label.set_color(left)
    other = axes.twinx()
    other.set_ylabel(unit, color=right)
    return other


def from_zero(*axes: Axes) -> None:
    """After everything is drawn; with some room above the highest value."""
    for each in axes:
        each.set_ylim(0, 1.05 * each.get_ylim()[1])


def whole_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def as_svg(figure: Figure, label: str) -> str:
    """The figure as an <svg> element, without the XML prologue (it stands inside HTML). `label`: said by a reader."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for name, colour in _PLACEHOLDERS.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r' (?:width|height)="[0-9.]+pt"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
