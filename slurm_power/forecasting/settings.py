"""[forecast]: the day that repeats, and how the past becomes bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastConfig:
    model: Literal["learned", "naive"] = "learned"
    """learned: what the history teaches, as long as that beats the naive forecasts; naive: yesterday, corrected."""

    period_s: float = 86_400.0
    """The "day": load is expected to look as it did so long ago."""

    residual_window_s: float = 14 * 86_400.0
    """How far back own errors are collected for the quantiles."""

    bias_window_s: float = 3_600.0
    """Today's mean distance from yesterday is taken over so long."""

    bias_decay_s: float = 3 * 3_600.0
    """That distance fades with this time constant over the horizon."""

    min_errors: int = 20
    """Fewer own errors at a horizon than this: the stated band is used instead."""

    stated_band_fraction: float = 0.5
    """Without history: 80 % of what comes is taken to lie within this share of the forecast, either side."""

    queue_trust_s: float = 4 * 3_600.0
    """IT load: how far ahead running and pending jobs tell more than yesterday (time constant)."""

    def __post_init__(self) -> None:
        for key in ("period_s", "residual_window_s", "bias_window_s", "bias_decay_s", "queue_trust_s"):
            require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
        require(self.min_errors >= 1, "min_errors", self.min_errors, "must be at least 1")
        require(
            0 < self.stated_band_fraction <= 1,
            "stated_band_fraction",
            self.stated_band_fraction,
            "must be in (0, 1]",
        )
