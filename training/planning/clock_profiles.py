"""Time and energy of one pass through a stage at each clock: what frequency planning chooses from. Pure.

The profile's form, its CSV and the rule that ends a sweep are those of Zeus' PipelineFrequencyOptimizer (Perseus,
SOSP'24; ml.energy/zeus).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from training.errors import ConfigError, require
from training.planning.instructions import Compute, Pass

SWEEP_PATIENCE = 5
_COLUMNS = ("stage", "instruction", "frequency", "time", "energy")


@dataclass(frozen=True, slots=True, order=True)
class OperatingPoint:
    time_s: float
    energy_joules: float
    clock_mhz: int


Key = tuple[int, Pass]
"""A stage, and which way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockProfile:
    """Every pass of the model, at the clocks it was measured at, and the draw of a GPU that waits for another."""

    points: Mapping[Key, tuple[OperatingPoint, ...]]
    waiting_watts: float

    def __post_init__(self) -> None:
        require(self.waiting_watts >= 0, "waiting_watts", self.waiting_watts, "must not be negative")
        for (stage, direction), points in self.points.items():
            name = f"clock profile of stage {stage}, {direction}"
            require(bool(points), name, "empty", "needs at least one clock")
            require(len({p.clock_mhz for p in points}) == len(points), name, "twice the same clock", "must differ")
            valid = all(p.time_s > 0 and p.energy_joules >= 0 for p in points)
            require(valid, name, "time or energy", "must be positive")
            highest = max(points, key=lambda p: p.clock_mhz)
            require(
                highest.time_s <= min(points).time_s, name, highest.clock_mhz, "the highest clock must be the fastest"
            )

    def of(self, compute: Compute) -> tuple[OperatingPoint, ...]:
        """Raise ConfigError for a stage that was not profiled."""
        try:
            return self.points[compute.stage, compute.direction]
        except KeyError:
            raise ConfigError(f"clock profile: stage {compute.stage}, {compute.direction} is missing") from None

    def fastest(self, compute: Compute) -> OperatingPoint:
        """At the highest clock."""
        return max(self.of(compute), key=lambda point: point.clock_mhz)

    def at(self, compute: Compute, clock_mhz: int) -> OperatingPoint:
        return next(point for point in self.of(compute) if point.clock_mhz == clock_mhz)

    def extra_joules(self, point: OperatingPoint) -> float:
        """What a pass needs more than waiting for as long would: in a step of given length only this can be saved."""
        return point.energy_joules - self.waiting_watts * point.time_s


def frontier(points: Sequence[OperatingPoint], waiting_watts: float) -> tuple[OperatingPoint, ...]:
    """From the fastest on, every slower point that needs less than all faster ones; waiting is paid for either way."""
    kept: list[OperatingPoint] = []
    least = float("inf")
    for point in sorted(points):
        extra_joules = point.energy_joules - waiting_watts * point.time_s
        if extra_joules < least:
            kept.append(point)
            least = extra_joules
    return tuple(kept)


def sweep_is_over(energies_joules: Sequence[float], *, patience: int = SWEEP_PATIENCE) -> bool:
    """Whether a sweep from the highest clock down saw energy rise `patience` times in a row: slower is only worse."""
    if len(energies_joules) <= patience:
        return False
    tail = energies_joules[-patience - 1 :]
    return all(later > earlier for earlier, later in pairwise(tail))


def read_profile(lines: Sequence[str], *, waiting_watts: float) -> ClockProfile:
    """Zeus' CSV: stage, instruction ("forward", "backward"), frequency in MHz, time in s, energy in J.

    Raise ConfigError naming the line that cannot be read.
    """
    reader = csv.DictReader(lines)
    heading = ",".join(reader.fieldnames or ())
    require(heading == ",".join(_COLUMNS), "clock profile, line 1", heading, f"must be {','.join(_COLUMNS)}")
    points: dict[Key, list[OperatingPoint]] = defaultdict(list)
    for row in reader:
        try:
            key = int(row["stage"]), Pass(row["instruction"])
            point = OperatingPoint(float(row["time"]), float(row["energy"]), int(row["frequency"]))
        except (TypeError, ValueError) as cause:
            raise ConfigError(f"clock profile, line {reader.line_num}: {cause}") from cause
        points[key].append(point)
    return ClockProfile(points={key: _never_faster(p) for key, p in points.items()}, waiting_watts=waiting_watts)


def _never_faster(measured: Sequence[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """Noise can make a lower clock look faster than a higher one; take it to be no faster."""
    points: list[OperatingPoint] = []
    for point in sorted(measured, key=lambda point: -point.clock_mhz):
        points.append(replace(point, time_s=max(point.time_s, points[-1].time_s if points else 0.0)))
    return tuple(points)
