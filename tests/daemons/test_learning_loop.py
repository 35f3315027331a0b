"""Learning beside the ticks: what it forecasts, what survives a restart, what it does with a bad model."""

from __future__ import annotations

import json
import math

import pytest

from slurm_power.daemons.learning_loop import LearningLoop
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.forecasting import boosted
from slurm_power.forecasting.live import LearningForecaster
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.rolling import RollingConfig
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.ports.telemetry_store import Point
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.memory_model_store import MemoryModelStore
from slurm_power.testing.memory_store import MemoryStore

SLOT_S, SLOTS, DAY_S = 3600.0, 24, 86_400.0
START_S = 20_000 * DAY_S


@pytest.fixture(autouse=True)
def _small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "_ROUNDS", 10)
    monkeypatch.setattr(boosted, "_PAIRS", 3000)


class Site:
    def __init__(self, days: int, models: MemoryModelStore | None = None) -> None:
        self.clock = FakeClock(wall_s=START_S + days * DAY_S)
        self.models = models or MemoryModelStore()
        self.history = SiteHistory(keep_s=400 * DAY_S, slot_s=SLOT_S, max_gap_s=60.0)
        store = MemoryStore()
        store.write([Point("slot", START_S + h * SLOT_S, self.watts(h)) for h in range(days * 24)])
        self.history.load(store, wall_s=self.clock.wall_s())
        naive = NaiveForecaster(ForecastConfig(), slot_s=SLOT_S)
        config = RollingConfig(refit_days=14.0, calibration_days=7.0, guard_days=5.0)
        self.building, self.it = (
            LearningForecaster(naive, slot_s=SLOT_S, slots=SLOTS, config=config) for _ in range(2)
        )
        self.loop = LearningLoop(
            self.history, clock=self.clock, slot_s=SLOT_S, building=self.building, it=self.it, models=self.models
        )

    @staticmethod
    def watts(hour: int) -> dict[str, float]:
        drift = 100 * math.sin(hour / 17.0)
        return {
            "inflexible_watts": 1000 + 300 * math.sin(2 * math.pi * hour / 24) + drift,
            "it_wanted_watts": 500 + drift,
            "running_gpus": 10 + drift / 10,
        }

    def forecast(self, *, start_s: float | None = None) -> str:
        start_s = self.clock.wall_s() if start_s is None else start_s
        past = [sample for sample in self.history.inflexible() if sample.start_wall_s < start_s]
        return self.building.forecast(past, start_wall_s=start_s, slots=SLOTS).model


def test_before_there_is_enough_to_learn_from_the_naive_forecaster_answers() -> None:
    site = Site(days=5)
    site.loop.step()
    assert "learned" not in site.forecast()


def test_what_was_learned_forecasts_the_slots_and_hands_on_its_past_errors() -> None:
    site = Site(days=40)
    naive = site.forecast()
    site.loop.step()
    made = site.building.forecast(site.history.inflexible(), start_wall_s=site.clock.wall_s(), slots=SLOTS)
    assert (made.model, "learned" in naive) == ("learned", False)
    assert len(made.errors) > 10
    hours = [round((made.start_wall_s - START_S) / SLOT_S) + i for i in range(SLOTS)]
    truth = [site.watts(hour)["inflexible_watts"] for hour in hours]
    off = [abs(a - b) for a, b in zip(truth, made.quantile(0.5), strict=True)]
    assert sum(off) / SLOTS < 60  # the drift alone swings by 200


def test_a_forecast_moves_on_for_a_few_slots_and_no_further() -> None:
    site = Site(days=40)
    site.loop.step()
    now_s = site.clock.wall_s()
    assert site.forecast(start_s=now_s + 2 * SLOT_S) == "learned"
    assert site.forecast(start_s=now_s + 6 * SLOT_S) != "learned"


def test_a_restarted_controller_uses_the_model_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Site(days=40)
    before.loop.step()
    assert set(before.models.texts) == {"building", "it"}
    after = Site(days=40, models=before.models)
    kept = json.loads(before.models.texts["building"])["until"]
    after.loop.step()
    assert after.forecast() == "learned"
    newest = after.building.newest_model()
    assert newest is not None
    assert newest[2] == kept


@pytest.mark.parametrize(
    "text", ["", "{}", '{"slot_s": 3600.0, "start": 1, "until": 2, "model": "cos\\nsystem"}', "[1]"]
)
def test_a_model_that_is_none_is_learned_anew(text: str) -> None:
    models = MemoryModelStore()
    models.save("building", text)
    site = Site(days=40, models=models)
    site.loop.step()
    assert site.forecast() == "learned"


def test_a_model_for_other_slots_is_not_used() -> None:
    before = Site(days=40)
    before.loop.step()
    raw = json.loads(before.models.texts["building"])
    before.models.save("building", json.dumps({**raw, "slot_s": 900.0}))
    again = Site(days=40, models=before.models)
    assert again.building.newest_model() is None
