"""plan_dispatch: from forecast, tariff and battery to the dispatch plan and the IT envelope."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import Tariff
from slurm_power.forecasting.forecast import LoadForecast

__all__ = ["PlannerConfig", "plan_dispatch"]


def plan_dispatch(
    forecast: LoadForecast,
    *,
    tariff: Tariff,
    battery: BatteryLimits,
    site: SiteLimits,
    config: PlannerConfig,
    now_wall_s: float,
    stored_joules: float | None,
    incumbent_watts: float,
    it_firm_watts: Sequence[float] | None = None,
) -> DispatchPlan:
    """The cheapest dispatch over the forecast's slots. Never infeasible: see DispatchPlan.shortfalls.

    `stored_joules` None: the battery's state is unknown, so the plan does without it. `incumbent_watts` is
    the peak already set this billing period. `it_firm_watts` per slot is what relocation cannot hold back
    (None: nothing is firm). The first slot may have begun: it is planned from `now_wall_s` to its end.
    """
    slots = []
    start = forecast.inflexible.start_wall_s
    inflexible = forecast.inflexible.quantile(config.inflexible_quantile)
    it_load = forecast.it.quantile(config.it_quantile)
    target = max(
        incumbent_watts,
        config.target_floor_watts,
        max(a + b * site.pue for a, b in zip(inflexible, it_load, strict=True)),
    )
    for i, (infl, it) in enumerate(zip(inflexible, it_load, strict=True)):
        slots.append(
            PlanSlot(
                start + i * config.slot_s,
                config.slot_s,
                infl + it * site.pue,
                0.0,
                0.0,
                stored_joules or 0.0,
                infl,
                it,
                0.0,
                (target - infl) / site.pue,
                tariff.price_at(start + i * config.slot_s),
            )
        )
    return DispatchPlan(now_wall_s, target, tuple(slots), 0.0)
