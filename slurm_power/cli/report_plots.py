"""The four curves of a quality report: for the page and as PNG files. Gaps are hatched, and no line crosses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from slurm_power.cli.report_style import CURVES, LIGHT, PLACEHOLDERS, Colours, as_svg, axes_over_time, styled
from slurm_power.errors import ConfigError
from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.report import QualityReport
from slurm_power.sla.trace import Trace

MAX_LINES = 8
"""More GPUs are drawn as the band they lie in."""

DPI = 130

_GAP_HATCH = "\\\\"  # lines: dots would weigh a megabyte

Numbers = NDArray[np.float64]
Curve = Callable[[Trace], Numbers]
Draw = Callable[[QualityReport, Colours], Figure]


def svgs(report: QualityReport) -> dict[str, str]:
    """By name: what DRAWN lists."""
    found = {}
    for name, (label, draw) in DRAWN.items():
        with styled(PLACEHOLDERS):
            found[name] = as_svg(draw(report, PLACEHOLDERS), label, name)
    return found


def write_pngs(report: QualityReport, folder: Path) -> list[Path]:
    """Raise ConfigError when they cannot be written."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (_, draw) in DRAWN.items():
            with styled(LIGHT):
                path = folder / f"{name}.png"
                draw(report, LIGHT).savefig(path, dpi=DPI)
            written.append(path)
    except OSError as cause:
        raise ConfigError(f"{folder}: {cause.strerror}") from cause
    return written


def clock_plot(report: QualityReport, colours: Colours) -> Figure:
    figure, axes = axes_over_time("SM clock under load", "MHz")
    _lines(axes, report, colours, lambda trace: trace.clock_mhz)
    if len(report.gpus) <= MAX_LINES:
        for gpu, colour in _coloured(report.gpus, colours):
            trace = gpu.trace
            axes.fill_between(
                _times(trace), trace.clock_low_mhz, trace.clock_high_mhz, color=colour, alpha=0.15, linewidth=0
            )
    expected = {regime.expected_mhz for gpu in report.gpus for regime in gpu.clock.regimes[:1]}
    for mhz in sorted(expected)[:3]:
        axes.axhline(mhz, color=colours["quiet"], linestyle="--", linewidth=1.0, label=f"expected, {mhz:,.0f} MHz")
    low, high = axes.get_ylim()
    spread = max(high - low, 200.0)  # a few MHz must not look like much
    axes.set_ylim((low + high - spread) / 2, (low + high + spread) / 2)
    return _finished(figure, axes, report, colours)


def throttling_plot(report: QualityReport, colours: Colours) -> Figure:
    figure, axes = axes_over_time("Held back, all GPUs together", "% of the time")
    trace = report.gpus[0].trace
    infrastructure = 100 * _mean(report.gpus, lambda one: one.infrastructure_fraction)
    policy = 100 * _mean(report.gpus, lambda one: one.policy_fraction)
    axes.fill_between(
        _times(trace), 0, infrastructure, step="post", color=colours["bad"], alpha=0.7, label="by the infrastructure"
    )
    axes.fill_between(
        _times(trace),
        infrastructure,
        infrastructure + policy,
        step="post",
        color=colours["first"],
        alpha=0.35,
        hatch="//",
        label="by agreed power caps",
    )
    axes.set_ylim(0, 105)
    return _finished(figure, axes, report, colours)


def thermal_plot(report: QualityReport, colours: Colours) -> Figure:
    figure, axes = axes_over_time("Left until the board slows itself down", "°C, lowest")
    _lines(axes, report, colours, lambda trace: trace.margin_celsius)
    low = report.thresholds.thermal.low_margin_celsius
    axes.axhline(low, color=colours["bad"], linestyle="--", linewidth=1.0, label=f"too near: under {low:g} °C")
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(axes.get_ylim()[1], low) * 1.1)
    return _finished(figure, axes, report, colours)


def power_plot(report: QualityReport, colours: Colours) -> Figure:
    figure, axes = axes_over_time("Power of each GPU, mean", "W")
    _lines(axes, report, colours, lambda trace: trace.draw_watts)
    limit = _mean(report.gpus, lambda one: one.limit_watts)
    axes.step(
        _times(report.gpus[0].trace),
        limit,
        where="post",
        color=colours["quiet"],
        linestyle=":",
        label="limit in force, mean",
    )
    known = [gpu.board.tdp_watts for gpu in report.gpus if gpu.board.tdp_watts is not None]
    if known:
        axes.axhline(max(known), color=colours["bad"], linestyle="--", linewidth=1.0, label=f"TDP, {max(known):,.0f} W")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    return _finished(figure, axes, report, colours)


DRAWN: dict[str, tuple[str, Draw]] = {
    "clock": ("SM clock under load over time", clock_plot),
    "throttling": ("Share of the time in which the GPUs were held back, by whom", throttling_plot),
    "thermal": ("Degrees left until a board slows itself down, over time", thermal_plot),
    "power": ("Power of each GPU and the limit in force, over time", power_plot),
}


def _lines(axes: Axes, report: QualityReport, colours: Colours, curve: Curve) -> None:
    if len(report.gpus) <= MAX_LINES:
        for gpu, colour in _coloured(report.gpus, colours):
            axes.plot(_times(gpu.trace), curve(gpu.trace), color=colour, label=f"{gpu.node} {gpu.uuid[:12]}")
        return
    table = np.array([curve(gpu.trace) for gpu in report.gpus])
    known = np.isfinite(table).any(axis=0)
    low, high = (np.full(table.shape[1], np.nan) for _ in range(2))
    low[known], high[known] = np.nanmin(table[:, known], axis=0), np.nanmax(table[:, known], axis=0)
    times = _times(report.gpus[0].trace)
    axes.fill_between(times, low, high, color=colours["first"], alpha=0.25, linewidth=0, label="lowest to highest")
    axes.plot(times, _mean(report.gpus, curve), color=colours["first"], label=f"mean of {len(report.gpus)} GPUs")


def _coloured(gpus: Sequence[GpuFigures], colours: Colours) -> Iterator[tuple[GpuFigures, str]]:
    for number, gpu in enumerate(gpus):
        yield gpu, colours[CURVES[number % len(CURVES)]]


def _mean(gpus: Sequence[GpuFigures], curve: Curve) -> Numbers:
    """Of those GPUs that are known at a time; NaN where none is."""
    table = np.array([curve(gpu.trace) for gpu in gpus])
    counts = np.isfinite(table).sum(axis=0)
    mean: Numbers = np.full(table.shape[1], np.nan)
    np.divide(np.nansum(table, axis=0), counts, out=mean, where=counts > 0)
    return mean


def _times(trace: Trace) -> Any:
    """Which matplotlib takes, whatever its types say."""
    return [_at(wall_s) for wall_s in trace.begin_wall_s.tolist()]


def _at(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)


def _finished(figure: Figure, axes: Axes, report: QualityReport, colours: Colours) -> Figure:
    scope = report.scope
    ends: Any = (_at(scope.since_wall_s), _at(scope.until_wall_s))
    axes.set_xlim(*ends)
    handles = axes.get_legend_handles_labels()[0]
    if _gaps(axes, report, colours):
        handles.append(
            Patch(facecolor="none", edgecolor=colours["quiet"], hatch=_GAP_HATCH, linewidth=0, label="not known")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _gaps(axes: Axes, report: QualityReport, colours: Colours) -> bool:
    """Hatched where of no GPU anything is known, for longer than readings may be apart."""
    known = np.isfinite(np.array([gpu.trace.draw_watts for gpu in report.gpus])).any(axis=0)
    trace = report.gpus[0].trace
    edges = np.flatnonzero(np.diff(np.concatenate([[True], known, [True]]).astype(int)))
    found = [pair for pair in edges.reshape(-1, 2).tolist() if _is_gap(trace, report, *pair)]
    for begin, end in found:
        ends: Any = [_at(trace.begin_wall_s[0] + trace.bin_s * place) for place in (begin, end)]
        axes.axvspan(*ends, facecolor="none", edgecolor=colours["quiet"], hatch=_GAP_HATCH, alpha=0.6, linewidth=0)
    return bool(found)


def _is_gap(trace: Trace, report: QualityReport, begin: int, end: int) -> bool:
    return (end - begin) * trace.bin_s > report.thresholds.data.gap_s
