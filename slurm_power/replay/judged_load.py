"""What a recorded load would have been billed under several forecasts, beside no battery, the best rule, the bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.replay.site_load import (
    BatteryRun,
    Forecast,
    SiteLoad,
    best_threshold_bill,
    perfect_import,
    run_planned,
)

NONE, THRESHOLD, BOUND = "none", "threshold_hindsight", "perfect"


@dataclass(frozen=True, slots=True, eq=False)
class JudgedLoad:
    bills: Mapping[str, float]
    """By name: NONE, THRESHOLD, BOUND and each forecast's."""

    runs: Mapping[str, BatteryRun]
    """By the forecasts' names."""

    @property
    def captured_fractions(self) -> dict[str, float | None]:
        """Of the saving that is possible, by name; None where nothing can be saved."""
        none, saved = self.bills[NONE], self.bills[NONE] - self.bills[BOUND]
        return {name: (none - bill) / saved if saved > 0 else None for name, bill in self.bills.items() if name != NONE}


def judge(
    case: SiteLoad, forecasts: Mapping[str, Forecast], *, tell: Callable[[str, float], None] = lambda name, share: None
) -> JudgedLoad:
    """Plans have no headroom: what is judged sees each slot's load while it lasts."""
    config = PlannerConfig(slot_s=case.slot_s, headroom_fraction=0.0, ramp_cost_fraction=0.0)
    runs = {
        name: run_planned(case, forecast, config=config, progress=partial(tell, name))
        for name, forecast in forecasts.items()
    }
    bills = {
        NONE: case.bill_of(case.watts).total,
        THRESHOLD: best_threshold_bill(case),
        **{name: case.bill_of(run.import_watts).total for name, run in runs.items()},
        BOUND: case.bill_of(perfect_import(case).import_watts).total,
    }
    return JudgedLoad(bills, runs)
