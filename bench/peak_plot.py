"""The grid event beside Emerald's field demonstration: ours is a replay, theirs was measured on hardware."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib.figure import Figure

from bench.peak_loads import DATA

_BEGUN_FRACTION, _STAYS_H = 0.95, 0.25
"""An event has begun when a cluster stays below this share of the mean before for so long."""

_BEFORE_H, _AFTER_H = 1.5, 5.0


def draw_grid_event(event: Mapping[str, Any], slot_s: float, file: Path) -> None:
    """`event`: what peak_jobs.grid_event found."""
    ours = np.array(event["slot_watts"], dtype=float)
    hours = np.arange(ours.size) * slot_s / 3600.0
    theirs_h, theirs = _emerald()
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        *_aligned(theirs_h, theirs), color="#999999", label="Emerald, Phoenix 2025: 256 GPUs, measured on hardware"
    )
    axes.plot(*_aligned(hours, ours), color="#0072b2", label="ours: 256 GPUs, a replay with Emerald's curves")
    axes.axhline(1 - event["asked_cut_fraction"], color="#d55e00", linestyle="--", linewidth=1, label="asked")
    axes.set_xlabel("hours since the cluster began to draw less")
    axes.set_ylabel("draw, of the mean before")
    axes.set_ylim(0.0, 1.15)
    axes.legend(loc="lower right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _aligned(hours: np.ndarray, watts: np.ndarray) -> tuple[Sequence[float], Sequence[float]]:
    before = float(watts[hours <= hours[0] + 1.0].mean())
    stays = max(1, round(_STAYS_H / (hours[1] - hours[0])))
    highest_ahead = np.lib.stride_tricks.sliding_window_view(watts, stays).max(axis=1)
    begun = hours[int(np.argmax(highest_ahead < _BEGUN_FRACTION * before))]
    shown = (hours >= begun - _BEFORE_H) & (hours <= begun + _AFTER_H)
    return (hours[shown] - begun).tolist(), (watts[shown] / before).tolist()


def _emerald() -> tuple[np.ndarray, np.ndarray]:
    with (DATA / "grid_events/emerald_srp_cluster_power.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    times = np.array([datetime.fromisoformat(row["timestamp"]).timestamp() for row in rows])
    return (times - times[0]) / 3600.0, np.array([float(row["total"]) for row in rows])
