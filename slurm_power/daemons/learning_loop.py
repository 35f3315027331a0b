"""Keeps the learned forecasts up: once a slot, beside the ticks. A tick never waits for it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping

import numpy as np

from slurm_power.daemons.site_history import SiteHistory
from slurm_power.errors import Unavailable
from slurm_power.forecasting.boosted import BoostedModel
from slurm_power.forecasting.live import LearningForecaster
from slurm_power.ports.clock import Clock
from slurm_power.ports.model_store import ModelStore

log = logging.getLogger(__name__)


class LearningLoop:
    def __init__(
        self,
        history: SiteHistory,
        *,
        clock: Clock,
        slot_s: float,
        building: LearningForecaster,
        it: LearningForecaster,
        models: ModelStore,
    ) -> None:
        self._history, self._clock, self._slot_s, self._models = history, clock, slot_s, models
        self._building, self._it = building, it
        self._kept: dict[str, int] = {}  # name -> until which slot the kept model has learned
        for name, forecaster in self._forecasters().items():
            self._adopt(name, forecaster)

    def step(self) -> None:
        """Forecast from the slot that has begun."""
        start_wall_s = math.floor(self._clock.wall_s() / self._slot_s) * self._slot_s
        self._building.learn(self._history.inflexible(), start_wall_s=start_wall_s)
        samples = self._history.it_wanted()
        queue = self._history.queue(sample.start_wall_s for sample in samples)
        self._it.learn(samples, start_wall_s=start_wall_s, extras=None if queue is None else np.array(queue))
        for name, forecaster in self._forecasters().items():
            self._keep(name, forecaster)

    def _forecasters(self) -> Mapping[str, LearningForecaster]:
        return {"building": self._building, "it": self._it}

    def _keep(self, name: str, forecaster: LearningForecaster) -> None:
        newest = forecaster.newest_model()
        if newest is None or self._kept.get(name) == newest[2]:
            return
        model, start, until = newest
        text = json.dumps({"slot_s": self._slot_s, "start": start, "until": until, "model": model.to_text()})
        try:
            self._models.save(name, text)
        except Unavailable as failure:
            log.warning("%s", failure)
            return
        self._kept[name] = until

    def _adopt(self, name: str, forecaster: LearningForecaster) -> None:
        """A model that does not fit, or is no model, is learned anew; that is logged, and costs a minute."""
        try:
            text = self._models.load(name)
        except Unavailable as failure:
            log.warning("%s", failure)
            return
        if text is None:
            return
        try:
            raw = json.loads(text)
            start, until, fits = int(raw["start"]), int(raw["until"]), raw["slot_s"] == self._slot_s
            model = BoostedModel.from_text(str(raw["model"]))
        except (ValueError, KeyError, TypeError) as cause:
            log.warning("the kept forecast model %s is not usable and is learned anew: %s", name, cause)
            return
        if fits and forecaster.adopt(model, start=start, until=until):
            self._kept[name] = until
        else:
            log.info("the kept forecast model %s was made for other slots; it is learned anew", name)
