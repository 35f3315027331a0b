"""What a model forecast at past origins, and when it learns anew: made once, kept by slots of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from slurm_power.forecasting.boosted import BoostedModel, train
from slurm_power.forecasting.grid import Floats, Index, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitRule:
    after: int
    """A model is used for so many slots; for half as many as it learned from, if that is less."""

    look_back: int
    """So many slots are learned from."""

    def lifetime(self, learned_slots: int, period: int) -> int:
        return min(self.after, max(period, learned_slots // 2))


@dataclass(frozen=True, slots=True, eq=False)
class _Learned:
    model: BoostedModel | None  # None: there was too little to learn from
    start: int  # slots of the epoch: learned from start <= slot < until
    until: int


@dataclass(slots=True, eq=False)
class LearnedMemory:
    """Forecasts are only made by models that had seen nothing from the origin on."""

    slots: int
    quantiles: Sequence[float]
    threads: int = 1
    _models: list[_Learned] = field(default_factory=list)  # in the order they were learned
    _rows: dict[int, Floats] = field(default_factory=dict)

    def fill(
        self,
        series: Series,
        origins: Index,
        watts: Floats,
        made: np.ndarray,
        *,
        rule: RefitRule,
        progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        """Write the forecasts of consecutive `origins` into `watts` [origins, quantiles, slots] and True into `made`;
        both stay as they are where there was too little to learn from."""
        epoch, done = epoch_slot(series), 0
        while done < origins.size:
            learned = self._learned_for(series, int(origins[done]), rule)
            end = learned.until + rule.lifetime(learned.until - learned.start, series.period)
            part = origins[done : max(done + 1, done + end - epoch - int(origins[done]))]
            if learned.model is not None:
                self._forecast(learned, series, part)
                for i, origin in enumerate(part.tolist(), start=done):
                    watts[i] = self._rows[epoch + origin]
                    made[i] = True
            done += part.size
            progress(done / origins.size)

    def forget_before(self, slot: int) -> None:
        """Rows of origins before this slot of the epoch, and models that are not needed any more."""
        self._rows = {origin: row for origin, row in self._rows.items() if origin >= slot}
        later = [i for i, one in enumerate(self._models) if one.until > slot]
        self._models = self._models[max(0, (later[0] if later else len(self._models)) - 1) :]

    def newest(self) -> tuple[BoostedModel, int, int] | None:
        """The last model with the slots of the epoch it learned from: what is worth keeping over a restart."""
        usable = [one for one in self._models if one.model is not None]
        if not usable:
            return None
        last = usable[-1]
        assert last.model is not None
        return last.model, last.start, last.until

    def adopt(self, model: BoostedModel, *, start: int, until: int) -> bool:
        """Use a model that was kept; False if it is made for something else."""
        if model.slots != self.slots or tuple(model.quantiles) != tuple(self.quantiles):
            return False
        self._models.append(_Learned(model, start, until))
        return True

    def _learned_for(self, series: Series, origin: int, rule: RefitRule) -> _Learned:
        at = epoch_slot(series) + origin
        for one in reversed(self._models):
            young = one.until <= at < one.until + rule.lifetime(one.until - one.start, series.period)
            if young and (one.model is None or (one.model.lags.first_origin <= origin and one.model.reads(series))):
                return one
        begin = max(0, origin - rule.look_back)
        model = train(series.between(begin, origin), slots=self.slots, quantiles=self.quantiles, threads=self.threads)
        learned = _Learned(model, at - origin + begin, at)
        self._models.append(learned)
        self._models.sort(key=lambda one: one.until)
        return learned

    def _forecast(self, learned: _Learned, series: Series, origins: Index) -> None:
        epoch = epoch_slot(series)
        missing = np.array([o for o in origins.tolist() if epoch + o not in self._rows], dtype=np.int64)
        if not missing.size or learned.model is None:
            return
        model = replace(learned.model, trained_until=learned.until - epoch)
        for origin, row in zip(missing.tolist(), model.predict(series, missing, threads=self.threads), strict=True):
            self._rows[epoch + origin] = row


def epoch_slot(series: Series) -> int:
    """The slot of the epoch that the series begins with."""
    return round(series.start_wall_s / series.slot_s)
