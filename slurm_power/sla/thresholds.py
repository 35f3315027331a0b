"""What a good service is: etc/sla-thresholds.toml, one table for each quadrant. Fractions are of the judged time."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class DataThresholds:
    gap_s: float = 5.0
    """Two readings further apart enclose a gap; nothing is taken to be known of it. (Thinned points: 2.5 of their
    usual distance.)"""

    min_coverage_fraction: float = 0.9
    """Less of the time known: not enough data."""

    min_loaded_s: float = 60.0
    """Less loaded time: clocks and power are not judged."""

    loaded_fraction: float = 0.1
    """A GPU is loaded between two readings that both show at least this utilisation."""

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockThresholds:
    warn_mhz: float = 30.0
    """So far from the expected clock is worth a word, ..."""

    critical_mhz: float = 75.0
    """... and so far is wrong."""

    warn_outside_fraction: float = 0.05
    """Beyond warn_mhz for longer than this: warn."""

    fail_critical_fraction: float = 0.01
    """Beyond critical_mhz for longer than this: fail."""

    def __post_init__(self) -> None:
        _check(self)
        require(self.critical_mhz >= self.warn_mhz, "critical_mhz", self.critical_mhz, "must not be below warn_mhz")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottlingThresholds:
    warn_fraction: float = 0.001
    """Held back by the infrastructure (heat, power brake, hardware slowdown, a foreign limit) for longer: warn."""

    fail_fraction: float = 0.01
    """For longer than this: fail."""

    def __post_init__(self) -> None:
        _check(self)
        require(self.fail_fraction >= self.warn_fraction, "fail_fraction", self.fail_fraction, "is below warn_fraction")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalThresholds:
    low_margin_celsius: float = 5.0
    """Nearer than this to the board's own slowdown is too near."""

    warn_low_fraction: float = 0.01
    """Too near for longer than this: warn."""

    fail_low_fraction: float = 0.10
    """For longer than this: fail."""

    def __post_init__(self) -> None:
        _check(self)
        require(
            self.fail_low_fraction >= self.warn_low_fraction,
            "fail_low_fraction",
            self.fail_low_fraction,
            "is below warn_low_fraction",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerThresholds:
    busy_fraction: float = 0.8
    """Utilisation from here on is high, ..."""

    low_draw_fraction: float = 0.4
    """... and a draw below this share of the limit in force is low: together a bottleneck."""

    warn_bottleneck_fraction: float = 0.25
    """Of the loaded time: warn."""

    warn_unused_fraction: float = 0.5
    """Of the known time without load: warn."""

    over_limit_fraction: float = 0.05
    """A draw that is so much above the limit in force is over it."""

    warn_over_limit_fraction: float = 0.01
    """Over it for longer: warn."""

    fail_over_limit_fraction: float = 0.10
    """For longer than this: fail."""

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityThresholds:
    data: DataThresholds = field(default_factory=DataThresholds)
    clock: ClockThresholds = field(default_factory=ClockThresholds)
    throttling: ThrottlingThresholds = field(default_factory=ThrottlingThresholds)
    thermal: ThermalThresholds = field(default_factory=ThermalThresholds)
    power: PowerThresholds = field(default_factory=PowerThresholds)


def _check(table: Any) -> None:
    for one in fields(table):
        value = getattr(table, one.name)
        require(value > 0, one.name, value, "must be above 0")
        if one.name.endswith("_fraction"):
            require(value <= 1, one.name, value, "must be at most 1")
