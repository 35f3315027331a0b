"""The only place that converts units. Inside the product: W, J, s, MHz, fractions."""

from __future__ import annotations

JOULES_PER_KWH = 3_600_000.0


def kw_from_watts(watts: float) -> float:
    return watts / 1000.0


def joules_from_kwh(kwh: float) -> float:
    return kwh * JOULES_PER_KWH


def kwh_from_joules(joules: float) -> float:
    return joules / JOULES_PER_KWH


def watts_from_milliwatts(milliwatts: float) -> float:
    return milliwatts / 1000.0


def milliwatts_from_watts(watts: float) -> int:
    return round(watts * 1000.0)


def joules_from_millijoules(millijoules: float) -> float:
    return millijoules / 1000.0


def joules_from_microjoules(microjoules: float) -> float:
    return microjoules / 1e6


def fraction_from_percent(percent: float) -> float:
    return percent / 100.0


def percent_from_fraction(fraction: float) -> float:
    return fraction * 100.0
