"""How the reports' pictures look. For a page they are drawn in placeholder colours that become its CSS variables, so
that one picture serves light, dark and paper; for files in the light colours."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import matplotlib
import matplotlib.dates

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = {
    "ink": ("#1c2833", "#e6e9ec"),
    "paper": ("#ffffff", "#14181d"),
    "line": ("#d5d8dc", "#3a434c"),
    "quiet": ("#5f6b74", "#9aa5ae"),
    "good": ("#117a65", "#4fc3a1"),
    "warn": ("#9a6400", "#e8b04b"),
    "bad": ("#b83227", "#f07f72"),
    "first": ("#1f6fb2", "#6cb2f0"),
    "second": ("#b8640a", "#f0a44b"),
    "third": ("#7d3c98", "#c79be0"),
    "fourth": ("#117a65", "#4fc3a1"),
    "fifth": ("#5b6b1e", "#b5c46a"),
    "sixth": ("#a0405f", "#ec92b0"),
    "seventh": ("#3f6f7a", "#7fc0cd"),
    "eighth": ("#6a5230", "#c6a878"),
}
"""CSS variables: in light (and on paper), in the dark."""

LIGHT_PALETTE = "".join(f"--{name}:{light};" for name, (light, _) in PALETTE.items())
DARK_PALETTE = "".join(f"--{name}:{dark};" for name, (_, dark) in PALETTE.items())
CURVES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")

Colours = Mapping[str, str]
PLACEHOLDERS: Colours = {name: f"#0102{number:02x}" for number, name in enumerate(PALETTE)}
LIGHT: Colours = {name: light for name, (light, _) in PALETTE.items()}

SIZE_INCHES = (6.4, 3.2)


@contextmanager
def styled(colours: Colours) -> Iterator[None]:
    """Around everything that draws."""
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    faces = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    face = colours["paper"] if colours is LIGHT else "none"
    style: Any = {
        **dict.fromkeys(ink, colours["ink"]),
        **dict.fromkeys(faces, face),
        "grid.color": colours["ink"],
        "grid.alpha": 0.15,
        "font.size": 11.0,
        "axes.titlesize": 12.0,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.3,
        "svg.fonttype": "path",  # looks the same wherever the page is opened
        "svg.hashsalt": "slurm-power",  # ids inside the picture, the same every time
    }
    with matplotlib.rc_context(style):
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


def axes_over_time(title: str, unit: str) -> tuple[Figure, Axes]:
    """Of moments in UTC."""
    figure, axes = new_axes(title, unit, "time, UTC")
    dates: Any = matplotlib.dates  # it carries no types
    locator = dates.AutoDateLocator(tz=UTC, minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))
    return figure, axes


def as_svg(figure: Figure, label: str, prefix: str) -> str:
    """An <svg> element without the XML prologue. `label`: read aloud. `prefix`: keeps ids of several pictures apart."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for name, colour in PLACEHOLDERS.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r' (?:width|height)="[0-9.]+pt"', "", text, count=2)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
