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

    def quantile(self, q: float) -> Sequence[float]:
        return self.watts[q]


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
