"""plan_dispatch: from forecast, tariff and battery to the dispatch plan and the IT envelope."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.dispatch_problem import DispatchProblem, DispatchSolution, solve
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.linear_program import Values
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
    typical_runtime_s: float | None = None,
) -> DispatchPlan:
    """The cheapest dispatch over the forecast's slots. Never infeasible: see DispatchPlan.shortfalls.

    `stored_joules` None: the battery's state is unknown, so the plan does without it. `incumbent_watts` is
    the peak already set this billing period. `it_firm_watts` per slot is what relocation cannot hold back
    (None: nothing is firm). `typical_runtime_s`: how long flexible work runs once it is started (None: it can be
    stopped at will). A slot that has begun is planned from now to its end; slots that are over are left out.
    A billing period that starts inside the horizon starts without an incumbent.
    """
    series = _Series.of(forecast, config=config, now_wall_s=now_wall_s, it_firm_watts=it_firm_watts)
    periods = np.array([tariff.billing_period_start(start) for start in series.start_wall_s])
    period_starts, billing_period = np.unique(periods, return_inverse=True)
    this_period = tariff.billing_period_start(now_wall_s)
    incumbents = np.where(period_starts == this_period, incumbent_watts, 0.0)
    prices = np.array(
        [
            tariff.mean_price_per_kwh(start_wall_s=max(start, now_wall_s), duration_s=duration)
            for start, duration in zip(series.start_wall_s, series.duration_s, strict=True)
        ]
    )
    terminal_value = config.terminal_value_per_kwh
    problem = DispatchProblem(
        slot_s=series.slot_s,
        duration_s=series.duration_s,
        load_watts=series.inflexible_watts + site.pue * series.it_watts,
        sheddable_watts=config.max_shed_fraction * series.sheddable_watts,
        recoverable_watts=np.maximum(0.0, site.it_max_watts - series.it_watts),
        wanted_watts=series.it_watts,
        turnover_fraction=1.0 if typical_runtime_s is None else 1.0 - math.exp(-series.slot_s / typical_runtime_s),
        price_per_kwh=prices,
        billing_period=billing_period.astype(np.int64),
        incumbent_watts=np.maximum(incumbents, config.target_floor_watts),
        demand_price_per_kw=tariff.demand_price_per_kw,
        shed_price_per_kwh=config.shed_price_per_kwh,
        delay_price_per_kwh_hour=config.delay_price_per_kwh_hour,
        pue=site.pue,
        headroom_fraction=config.headroom_fraction,
        grid_limit_watts=site.grid_limit_watts,
        promised_watts=config.target_watts,
        battery=battery,
        stored_joules=stored_joules,
        terminal_value_per_kwh=(
            float(prices.mean()) * battery.discharge_efficiency if terminal_value is None else terminal_value
        ),
        ramp_cost_fraction=config.ramp_cost_fraction,
    )
    return _plan(problem, solve(problem), series, site=site, now_wall_s=now_wall_s)


class _Series:
    """The forecast from now on, as arrays of one entry per slot."""

    def __init__(
        self, start_wall_s: Values, duration_s: Values, slot_s: float, inflexible: Values, it: Values, firm: Values
    ) -> None:
        self.start_wall_s = start_wall_s
        self.duration_s = duration_s
        self.slot_s = slot_s
        self.inflexible_watts = np.maximum(0.0, inflexible)
        self.it_watts = np.maximum(0.0, it)
        self.sheddable_watts = np.maximum(0.0, self.it_watts - firm)

    @classmethod
    def of(
        cls,
        forecast: LoadForecast,
        *,
        config: PlannerConfig,
        now_wall_s: float,
        it_firm_watts: Sequence[float] | None,
    ) -> _Series:
        slot_s, n = forecast.inflexible.slot_s, forecast.slots
        if (forecast.it.slot_s, forecast.it.start_wall_s) != (slot_s, forecast.inflexible.start_wall_s):
            raise ValueError("the two forecasts do not speak of the same slots")
        starts = forecast.inflexible.start_wall_s + slot_s * np.arange(n)
        left = np.minimum(slot_s, starts + slot_s - now_wall_s)
        ahead = left > slot_s * 1e-3
        if not ahead.any():
            raise ValueError("the forecast ends before now: nothing to plan")
        firm = np.zeros(n) if it_firm_watts is None else np.asarray(it_firm_watts, dtype=np.float64)
        inflexible = np.asarray(forecast.inflexible.quantile(config.inflexible_quantile), dtype=np.float64)
        it = np.asarray(forecast.it.quantile(config.it_quantile), dtype=np.float64)
        return cls(starts[ahead], left[ahead], slot_s, inflexible[ahead], it[ahead], firm[ahead])


def _plan(
    problem: DispatchProblem, solution: DispatchSolution, series: _Series, *, site: SiteLimits, now_wall_s: float
) -> DispatchPlan:
    targets = np.minimum(problem.incumbent_watts + solution.new_peak_watts, site.grid_limit_watts)
    if problem.promised_watts is not None:
        targets = np.minimum(targets, problem.promised_watts)
    usable = (1 - problem.headroom_fraction) * targets[problem.billing_period]
    for_it = usable - series.inflexible_watts + solution.discharge_watts - solution.charge_watts
    envelope = np.clip(for_it / site.pue, 0.0, site.it_max_watts)
    columns = (
        series.start_wall_s,
        solution.grid_watts,
        solution.charge_watts,
        solution.discharge_watts,
        solution.stored_joules,
        series.inflexible_watts,
        series.it_watts,
        solution.shed_watts,
        envelope,
        problem.price_per_kwh,
        solution.recovered_watts,
    )
    return DispatchPlan(
        made_wall_s=now_wall_s,
        target_watts=float(targets[problem.billing_period[0]]),
        slots=tuple(
            PlanSlot(start, series.slot_s, *rest)
            for start, *rest in zip(*(column.tolist() for column in columns), strict=True)
        ),
        cost=solution.cost,
        shortfalls=tuple(_shortfalls(problem, solution, targets, series)),
    )


def _shortfalls(problem: DispatchProblem, solution: DispatchSolution, targets: Values, series: _Series) -> list[str]:
    """What the plan could not do, in words, with watts."""
    texts = []
    if not solution.solved:
        texts.append("the solver gave no plan: neither battery nor held-back work is planned")
    if problem.stored_joules is None:
        texts.append("the battery's state is unknown: planned without it")
    limits = [("grid limit", problem.grid_limit_watts)]
    if problem.promised_watts is not None:
        limits.append(("promised target", problem.promised_watts))
    for name, limit_watts in limits:
        excess = solution.grid_watts - limit_watts
        over = np.flatnonzero(excess > 1.0)
        if over.size:
            texts.append(
                f"{name} {limit_watts:.0f} W: exceeded by up to {excess.max():.0f} W in {over.size} slots, "
                f"first at {series.start_wall_s[over[0]]:.0f}: battery and sheddable load are used up"
            )
    incumbent = problem.incumbent_watts[problem.billing_period[0]]
    if incumbent > 0 and solution.new_peak_watts[problem.billing_period[0]] > 1.0:
        texts.append(
            f"the peak rises from {incumbent:.0f} W to {targets[problem.billing_period[0]]:.0f} W: "
            "holding it costs more than it saves, or cannot be done"
        )
    missing = problem.battery.reserve_stored_joules - solution.stored_joules[-1]
    if problem.stored_joules is not None and missing > 1e-3 * problem.battery.capacity_joules:
        texts.append(f"the battery's reserve lacks {missing / 3.6e6:.3f} kWh at the end of the plan")
    return texts
