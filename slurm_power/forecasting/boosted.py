"""A forecaster that learns: a linear model for each horizon, and LightGBM quantiles of what it leaves over.

The linear part follows today's distance from yesterday; the trees add the calendar, the site's state and the bands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightgbm
import numpy as np

from slurm_power.forecasting.grid import Floats, Index, Series
from slurm_power.forecasting.lags import Lags

FORMAT = 1
_RIDGE = 10.0
_PAIRS = 60_000
"""(origin, horizon) pairs the trees learn from."""

_ROUNDS = 120
_TREES: Mapping[str, Any] = {
    "objective": "quantile",
    "learning_rate": 0.08,
    "num_leaves": 31,
    "min_data_in_leaf": 40,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "feature_fraction": 0.7,
    "verbose": -1,
    "deterministic": True,
    "seed": 1,
}


@dataclass(frozen=True, slots=True, eq=False)
class BoostedModel:
    """Learned from slots before `trained_until`; predicts any later origin."""

    lags: Lags
    slots: int
    quantiles: tuple[float, ...]
    trained_until: int
    weights: Floats  # [slots, features + 1], of features scaled by `centre` and `spread`
    centre: Floats  # [slots, features]
    spread: Floats
    boosters: tuple[lightgbm.Booster, ...]

    def reads(self, series: Series) -> bool:
        """Whether it was made for a series with such extra columns and such days."""
        return self.centre.shape[1] == self.lags.width(series.extras.shape[1]) and self.lags.period == series.period

    def predict(self, series: Series, origins: Index, *, threads: int = 1) -> Floats:
        """[origins, quantiles, slots]; quantiles never cross. Reads only what is before each origin."""
        if origins.size and origins.min() < max(self.trained_until, self.lags.first_origin):
            raise ValueError("the model has seen slots after an origin it is asked for")
        found = np.empty((origins.size, len(self.quantiles), self.slots))
        for ahead in range(self.slots):
            columns = self.lags.columns(series, origins, ahead)
            base = self._linear(columns, ahead)
            rows = _tree_rows(series, columns, base, origins, ahead)
            for i, booster in enumerate(self.boosters):
                found[:, i, ahead] = base + np.asarray(booster.predict(rows, num_threads=threads))
        found.sort(axis=1)
        return found

    def _linear(self, columns: Floats, ahead: int) -> Floats:
        scaled = (columns - self.centre[ahead]) / self.spread[ahead]
        base: Floats = scaled @ self.weights[ahead, :-1] + self.weights[ahead, -1]
        return base

    def to_text(self) -> str:
        """JSON with LightGBM's own text format inside: reading it runs no code."""
        return json.dumps(
            {
                "format": FORMAT,
                "weeks": self.lags.weeks,
                "period": self.lags.period,
                "slots": self.slots,
                "quantiles": self.quantiles,
                "trained_until": self.trained_until,
                "weights": self.weights.tolist(),
                "centre": self.centre.tolist(),
                "spread": self.spread.tolist(),
                "boosters": [booster.model_to_string() for booster in self.boosters],
            }
        )

    @classmethod
    def from_text(cls, text: str) -> BoostedModel:
        """Raise ValueError for anything that `to_text` of this version did not write."""
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT:
                raise ValueError(f"model format {raw['format']}: only {FORMAT} is known")
            return cls(
                Lags(bool(raw["weeks"]), int(raw["period"])),
                int(raw["slots"]),
                tuple(float(q) for q in raw["quantiles"]),
                int(raw["trained_until"]),
                np.array(raw["weights"], dtype=np.float64),
                np.array(raw["centre"], dtype=np.float64),
                np.array(raw["spread"], dtype=np.float64),
                tuple(lightgbm.Booster(model_str=str(model)) for model in raw["boosters"]),
            )
        except (KeyError, TypeError, lightgbm.basic.LightGBMError) as cause:
            raise ValueError(f"not a forecast model: {cause}") from cause


def train(
    series: Series, *, slots: int, quantiles: Sequence[float], seed: int = 1, threads: int = 1
) -> BoostedModel | None:
    """Learn from the whole of `series`. None: it is too short to learn from."""
    length = series.watts.size
    lags = Lags.for_history(series, length)
    origins = np.arange(lags.first_origin, length - slots, dtype=np.int64)
    if origins.size < 2 * series.period:
        return None
    linear = [_fit_linear(series, lags, origins, ahead) for ahead in range(slots)]
    model = BoostedModel(
        lags,
        slots,
        tuple(quantiles),
        length,
        np.stack([weights for weights, _, _ in linear]),
        np.stack([centre for _, centre, _ in linear]),
        np.stack([spread for _, _, spread in linear]),
        (),
    )
    rows, left_over = _pairs(series, model, origins, np.random.default_rng(seed))
    data = lightgbm.Dataset(rows, left_over, free_raw_data=False)
    boosters = tuple(lightgbm.train({**_TREES, "alpha": q, "num_threads": threads}, data, _ROUNDS) for q in quantiles)
    return replace(model, boosters=boosters)


def _fit_linear(series: Series, lags: Lags, origins: Index, ahead: int) -> tuple[Floats, Floats, Floats]:
    usable = origins[series.known[origins + ahead]]
    columns, truth = lags.columns(series, usable, ahead), series.watts[usable + ahead]
    centre, spread = columns.mean(axis=0), columns.std(axis=0) + 1e-9
    scaled = np.column_stack([(columns - centre) / spread, np.ones(usable.size)])
    penalty = _RIDGE * np.eye(scaled.shape[1])
    penalty[-1, -1] = 0.0
    weights: Floats = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ truth)
    return weights, centre, spread


def _pairs(series: Series, model: BoostedModel, origins: Index, random: np.random.Generator) -> tuple[Floats, Floats]:
    each = max(1, _PAIRS // model.slots)
    rows, left_over = [], []
    for ahead in range(model.slots):
        usable = origins[series.known[origins + ahead]]
        drawn = random.choice(usable, size=min(each, usable.size), replace=False)
        columns = model.lags.columns(series, drawn, ahead)
        base = model._linear(columns, ahead)
        rows.append(_tree_rows(series, columns, base, drawn, ahead))
        left_over.append(series.watts[drawn + ahead] - base)
    return np.concatenate(rows), np.concatenate(left_over)


def _tree_rows(series: Series, columns: Floats, base: Floats, origins: Index, ahead: int) -> Floats:
    calendar = series.calendar(origins + ahead)
    return np.column_stack([columns, base, calendar, np.full(origins.size, float(ahead))])
