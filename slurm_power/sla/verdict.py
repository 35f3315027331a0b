"""A verdict for each quadrant of one GPU, against the thresholds. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.thresholds import QualityThresholds


class Verdict(StrEnum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "not enough data"


class Quadrant(StrEnum):
    CLOCK = "clock"
    THROTTLING = "throttling"
    THERMAL = "thermal"
    POWER = "power"


_ORDER = (Verdict.UNKNOWN, Verdict.PASS, Verdict.WARN, Verdict.FAIL)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """What is not known neither accuses nor acquits the rest."""
    return max(verdicts, key=_ORDER.index, default=Verdict.UNKNOWN)


def judge(gpu: GpuFigures, thresholds: QualityThresholds) -> dict[Quadrant, Verdict]:
    return {
        Quadrant.CLOCK: _clock(gpu, thresholds),
        Quadrant.THROTTLING: _throttling(gpu, thresholds),
        Quadrant.THERMAL: _thermal(gpu, thresholds),
        Quadrant.POWER: _power(gpu, thresholds),
    }


def _clock(gpu: GpuFigures, thresholds: QualityThresholds) -> Verdict:
    rules, warn, critical = thresholds.clock, gpu.clock.warn_fraction, gpu.clock.critical_fraction
    if not _known(gpu, gpu.clock.loaded_s, thresholds) or warn is None or critical is None:
        return Verdict.UNKNOWN
    if critical > rules.fail_critical_fraction:
        return Verdict.FAIL
    return Verdict.WARN if warn > rules.warn_outside_fraction else Verdict.PASS


def _throttling(gpu: GpuFigures, thresholds: QualityThresholds) -> Verdict:
    rules = thresholds.throttling
    if not _covered(gpu, gpu.throttling.known_s, thresholds):
        return Verdict.UNKNOWN
    return _graded(gpu.throttling.infrastructure_fraction, rules.warn_fraction, rules.fail_fraction)


def _thermal(gpu: GpuFigures, thresholds: QualityThresholds) -> Verdict:
    rules = thresholds.thermal
    if not _covered(gpu, gpu.thermal.known_s, thresholds):
        return Verdict.UNKNOWN
    return _graded(gpu.thermal.low_fraction, rules.warn_low_fraction, rules.fail_low_fraction)


def _power(gpu: GpuFigures, thresholds: QualityThresholds) -> Verdict:
    rules, power = thresholds.power, gpu.power
    if not _covered(gpu, power.known_s, thresholds):
        return Verdict.UNKNOWN
    over = _graded(power.over_limit_fraction, rules.warn_over_limit_fraction, rules.fail_over_limit_fraction)
    if over is not Verdict.PASS:
        return over
    if (power.unused_fraction or 0.0) > rules.warn_unused_fraction:
        return Verdict.WARN
    if not _known(gpu, power.loaded_s, thresholds):
        return Verdict.UNKNOWN
    return Verdict.WARN if (power.bottleneck_fraction or 0.0) > rules.warn_bottleneck_fraction else Verdict.PASS


def _graded(fraction: float | None, warn_above: float, fail_above: float) -> Verdict:
    if fraction is None:
        return Verdict.UNKNOWN
    if fraction > fail_above:
        return Verdict.FAIL
    return Verdict.WARN if fraction > warn_above else Verdict.PASS


def _covered(gpu: GpuFigures, known_s: float, thresholds: QualityThresholds) -> bool:
    """Whether enough of the time is known, of this very figure."""
    wanted_s = gpu.data.wanted_s
    return known_s > 0 and known_s >= thresholds.data.min_coverage_fraction * wanted_s


def _known(gpu: GpuFigures, loaded_s: float, thresholds: QualityThresholds) -> bool:
    covered = _covered(gpu, gpu.data.known_s, thresholds)
    return covered and loaded_s >= thresholds.data.min_loaded_s
