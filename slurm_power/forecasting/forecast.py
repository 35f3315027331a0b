"""A load forecast: watts per slot with quantiles, and what a forecaster must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

QUANTILES = (0.1, 0.5, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Sample:
    """One past slot of a series: its mean power."""

    start_wall_s: float
    watts: float


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """Watts of consecutive slots; `watts[q][i]` is quantile q of slot i. Quantiles never cross."""

    start_wall_s: float
    slot_s: float
    watts: Mapping[float, Sequence[float]]
    model: str  # what made it; shown to people
    errors: Sequence[Sequence[float]] = ()
    """Past errors, truth minus median, each over all slots: what days at this hour did to the forecast before."""

    def quantile(self, q: float) -> Sequence[float]:
        return self.watts[q]


def certain_forecast(watts: Sequence[float], *, start_wall_s: float, slot_s: float, model: str) -> SeriesForecast:
    """The same in every quantile: nothing else is thought possible."""
    return SeriesForecast(start_wall_s, slot_s, dict.fromkeys(QUANTILES, watts), model)


@dataclass(frozen=True, slots=True)
class LoadForecast:
    """What the site will draw: the load we cannot move, and the IT load if nobody moves it."""

    inflexible: SeriesForecast  # building, cooling of others, ...: grid side
    it: SeriesForecast  # node draw, before PUE, as if nothing were capped or deferred

    @property
    def slots(self) -> int:
        return len(self.inflexible.watts[0.5])


class Forecaster(Protocol):
    def forecast(self, history: Sequence[Sample], *, start_wall_s: float, slots: int) -> SeriesForecast:
        """`history` is in time order and may have gaps; nothing in it is later than `start_wall_s`."""
        ...
