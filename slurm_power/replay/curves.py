"""Throughput and draw of one GPU under a cap: measured (emerald_dvfs_sweep.csv) or as [relocation] assumes.

Between two measured caps both are interpolated; below the lowest measured cap nothing is assumed: it counts as that.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slurm_power.errors import ConfigError, require
from slurm_power.relocation.settings import RelocationConfig

Floats = NDArray[np.float64]

_WORKLOAD, _CAP, _THROUGHPUT, _DRAW = "Workload", "GPU power cap", "normalized throughput", "power per GPU"


@dataclass(frozen=True, slots=True)
class Curve:
    cap_watts: tuple[float, ...]
    throughput_fractions: tuple[float, ...]
    """Of the uncapped throughput, at each cap."""

    draw_watts: tuple[float, ...]
    """Of one busy GPU, at each cap."""

    def __post_init__(self) -> None:
        same = len(self.cap_watts) == len(self.throughput_fractions) == len(self.draw_watts)
        require(same and len(self.cap_watts) >= 2, "curve", self.cap_watts, "needs two points or more")
        require(bool(np.all(np.diff(self.cap_watts) > 0)), "curve", self.cap_watts, "caps must rise")
        for points in (self.throughput_fractions, self.draw_watts):
            require(bool(np.all(np.diff(points) >= 0)), "curve", points, "must not fall with the cap")
        require(self.throughput_fractions[-1] == 1.0, "curve", self.throughput_fractions, "must end at 1")

    @property
    def uncapped_draw_watts(self) -> float:
        return self.draw_watts[-1]

    def throughput_fraction(self, cap_watts: Floats | float) -> Floats:
        return np.asarray(np.interp(cap_watts, self.cap_watts, self.throughput_fractions))

    def drawn_watts(self, cap_watts: Floats | float) -> Floats:
        return np.asarray(np.interp(cap_watts, self.cap_watts, self.draw_watts))

    def lowest_cap_watts(self, max_slowdown_fraction: float) -> float:
        """The lowest cap that leaves this much of the throughput."""
        wanted = 1.0 - max_slowdown_fraction
        if wanted <= self.throughput_fractions[0]:
            return self.cap_watts[0]
        # Of several caps with the same throughput, the lowest.
        throughput, first = np.unique(self.throughput_fractions, return_index=True)
        return float(np.interp(wanted, throughput, np.array(self.cap_watts)[first]))

    def for_boards_of(self, gpu_max_watts: float) -> Curve:
        """The same shape on boards with another highest cap."""
        factor = gpu_max_watts / self.cap_watts[-1]
        return Curve(
            tuple(watts * factor for watts in self.cap_watts),
            self.throughput_fractions,
            tuple(watts * factor for watts in self.draw_watts),
        )


def assumed_curve(config: RelocationConfig) -> Curve:
    """A GPU that draws all its board allows, and slows down as [relocation] says."""
    watts = tuple(fraction * config.gpu_max_watts for fraction in config.curve_power_fractions)
    return Curve(watts, tuple(config.curve_throughput_fractions), watts)


def read_curves(lines: Iterable[str]) -> dict[str, Curve]:
    """By workload. A point that falls below one at a lower cap is lifted to it (measurements scatter)."""
    reader = csv.DictReader(lines)
    missing = [name for name in (_WORKLOAD, _CAP, _THROUGHPUT, _DRAW) if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"power curves: there is no column {', '.join(missing)}")
    points: dict[str, dict[float, tuple[float, float]]] = {}
    for row in reader:
        try:
            cap, throughput, draw = (float(row[name]) for name in (_CAP, _THROUGHPUT, _DRAW))
        except (TypeError, ValueError) as cause:
            raise ConfigError(f"power curves: line {reader.line_num}: {cause}") from cause
        if not all(math.isfinite(value) and value > 0 for value in (cap, throughput, draw)):
            raise ConfigError(f"power curves: line {reader.line_num}: values must be above 0")
        points.setdefault(row[_WORKLOAD], {})[cap] = (throughput, draw)
    if not points:
        raise ConfigError("power curves: the file has no rows")
    return {name: _curve(at) for name, at in points.items()}


def _curve(points: Mapping[float, tuple[float, float]]) -> Curve:
    caps = sorted(points)
    throughput = np.maximum.accumulate([points[cap][0] for cap in caps])
    draw = np.maximum.accumulate([points[cap][1] for cap in caps])
    return Curve(tuple(caps), tuple((throughput / throughput[-1]).tolist()), tuple(draw.tolist()))
