"""The demo's three plots as inline SVG. X axes are hours of the compressed day."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slurm_power.demo.result import JobSpan, RunResult
from slurm_power.units import kw_from_watts, kwh_from_joules

COLOURS = {"firm": "#c0392b", "flexible": "#2471a3", "preemptible": "#7d3c98", "plain": "#616a6b"}
UNMANAGED, MANAGED, TARGET = "#999999", "#117a65", "#d68910"


def grid_plot(unmanaged: RunResult, managed: RunResult) -> str:
    figure, axes = _axes("Grid import: mean of each metering interval", "kW")
    for run, colour in ((unmanaged, UNMANAGED), (managed, MANAGED)):
        hours = [_hour(run, i.start_wall_s - run.start_wall_s) for i in run.grid.intervals]
        draws = [kw_from_watts(interval.average_watts) for interval in run.grid.intervals]
        axes.step(hours, draws, where="post", color=colour, label=run.label)
    if managed.targets:
        hours = [_hour(managed, at_s) for at_s, _ in managed.targets]
        axes.step(
            hours,
            [kw_from_watts(watts) for _, watts in managed.targets],
            where="post",
            color=TARGET,
            linestyle="--",
            label="target (managed)",
        )
    axes.set_ylim(bottom=0, top=1.25 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", ncols=3)
    return _svg(figure)


def battery_plot(managed: RunResult) -> str:
    figure, axes = _axes("Battery in the managed run", "kW (gives above 0, takes below)")
    hours = [_hour(managed, row.wall_s - managed.start_wall_s) for row in managed.rows]
    powers = [kw_from_watts(row.battery_discharge_watts - row.battery_charge_watts) for row in managed.rows]
    axes.fill_between(hours, powers, step="post", color=MANAGED, alpha=0.5)
    stored = axes.twinx()
    stored.plot(hours, [1000 * kwh_from_joules(row.stored_joules) for row in managed.rows], color=TARGET)
    stored.set_ylabel("stored, Wh", color=TARGET)
    stored.set_ylim(bottom=0)
    return _svg(figure)


def jobs_plot(unmanaged: RunResult, managed: RunResult) -> str:
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    for index, run in enumerate((unmanaged, managed)):
        axes = figure.add_subplot(1, 2, index + 1)
        _timeline(axes, run, run.spans)
    return _svg(figure)


def _timeline(axes: Axes, run: RunResult, spans: Sequence[JobSpan]) -> None:
    for line, span in enumerate(sorted(spans, key=lambda s: s.submit_s)):
        colour = COLOURS.get(span.job_class, "#000000")
        submit, start, end = (_hour(run, at_s) for at_s in (span.submit_s, span.start_s, span.end_s))
        axes.barh(line, start - submit, left=submit, height=0.3, color=colour, alpha=0.25)
        axes.barh(line, end - start, left=start, height=0.75, color=colour, hatch="////" if span.capped else None)
    axes.set_yticks(range(len(spans)), [s.name for s in sorted(spans, key=lambda s: s.submit_s)], fontsize=6)
    axes.invert_yaxis()
    axes.set_title(f"Jobs, {run.label} (pale: waiting, hatched: capped by us)", fontsize=9)
    axes.set_xlabel("hour of the compressed day")


def _axes(title: str, unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.set_xlabel("hour of the compressed day")
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _hour(run: RunResult, seconds: float) -> float:
    return 24.0 * seconds / run.day_s


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element, without the XML prologue (it stands inside HTML)."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
