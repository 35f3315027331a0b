"""plan_dispatch: from forecast, tariff and battery to the dispatch plan and the IT envelope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.demand_bounds import DemandBound, demand_bounds, slot_limits
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.dispatch_problem import DispatchProblem, DispatchSolution, held_back_cost, solve, solve_each
from slurm_power.ess.grid_event import GridEvent, event_limits
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.linear_program import Values
from slurm_power.ess.plan import DispatchPlan, PlanSlot
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.rates import Rates, mean_prices
from slurm_power.ess.rollout import Candidate, mean_costs
from slurm_power.forecasting.forecast import LoadForecast, SeriesForecast

__all__ = ["PlannerConfig", "plan_dispatch"]


MARGINS = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Loads that are planned for: the median forecast plus so many times the distance to its quantile 0.9."""

MET_FRACTION = 0.8
"""Of a past day's error, what plans are played over: they are made anew each slot and never meet the whole of it."""

MIN_SCENARIOS = 10
"""With fewer past days a fixed quantile is planned for."""

_DUST_WATTS = 1.0
"""An excess up to this is none."""


def plan_dispatch(
    forecast: LoadForecast,
    *,
    rates: Rates,
    ledger: DemandLedger,
    battery: BatteryLimits,
    site: SiteLimits,
    config: PlannerConfig,
    now_wall_s: float,
    stored_joules: float | None,
    it_firm_watts: Sequence[float] | None = None,
    typical_runtime_s: float | None = None,
    events: Sequence[GridEvent] = (),
) -> DispatchPlan:
    """The cheapest dispatch over the forecast's slots. Never infeasible: see DispatchPlan.shortfalls.

    `stored_joules` None: the battery's state is unknown, so the plan does without it. `ledger` holds the peaks that
    are set already: only what rises above them costs. `it_firm_watts` per slot is what relocation cannot hold back
    (None: nothing is firm). `typical_runtime_s`: how long flexible work runs once it is started (None: it can be
    stopped at will). A slot that has begun is planned from now to its end; slots that are over are left out.
    A billing period that starts inside the horizon starts without peaks of its own. What `events` ask is promised.

    With enough past errors in the forecast several loads are planned for, and the plan is taken that would have cost
    least over how those days went (rollout.py); otherwise the load is planned for at the config's quantiles.
    """
    series = _Series(forecast, config=config, pue=site.pue, now_wall_s=now_wall_s, it_firm_watts=it_firm_watts)
    starts = np.maximum(series.start_wall_s, now_wall_s)
    prices = mean_prices(rates, starts, series.duration_s)
    promises = _promises(config, events, starts, series.duration_s)
    terminal_value = config.terminal_value_per_kwh
    demands = demand_bounds(rates, ledger, starts, floor_watts=config.target_floor_watts)
    problem = DispatchProblem(
        slot_s=series.slot_s,
        duration_s=series.duration_s,
        load_watts=series.inflexible_watts + site.pue * series.it_watts,
        sheddable_watts=config.max_shed_fraction * series.sheddable_watts,
        recoverable_watts=np.maximum(0.0, site.it_max_watts - series.it_watts),
        wanted_watts=series.it_watts,
        turnover_fraction=1.0 if typical_runtime_s is None else 1.0 - math.exp(-series.slot_s / typical_runtime_s),
        price_per_kwh=prices,
        demands=demands,
        charge_limit_watts=np.minimum(
            _charge_limits(demands, series.low_watts), np.minimum(promises, site.grid_limit_watts)
        ),
        shed_price_per_kwh=config.shed_price_per_kwh,
        delay_price_per_kwh_hour=config.delay_price_per_kwh_hour,
        pue=site.pue,
        headroom_fraction=config.headroom_fraction,
        grid_limit_watts=site.grid_limit_watts,
        promised_watts=promises,
        battery=battery,
        stored_joules=stored_joules,
        terminal_value_per_kwh=(
            float(prices.mean()) * battery.discharge_efficiency if terminal_value is None else terminal_value
        ),
        ramp_cost_fraction=config.ramp_cost_fraction,
    )
    if stored_joules is None or len(series.errors) < MIN_SCENARIOS:
        return _plan(problem, solve(problem), series, series.inflexible_watts, site=site, now_wall_s=now_wall_s)
    return _best_plan(problem, series, site=site, now_wall_s=now_wall_s)


def _promises(config: PlannerConfig, events: Sequence[GridEvent], starts: Values, duration_s: Values) -> Values:
    asked = event_limits(events, starts, duration_s)
    return asked if config.target_watts is None else np.minimum(asked, config.target_watts)


def _charge_limits(demands: Sequence[DemandBound], low_watts: Values) -> Values:
    """Charging may lift the import to what is billed, or to a peak that the load will very likely set without it."""
    levels = [max(bound.billed_watts, float(low_watts[bound.covers].max())) for bound in demands]
    return slot_limits(demands, np.array(levels), low_watts.size)


def _best_plan(problem: DispatchProblem, series: _Series, *, site: SiteLimits, now_wall_s: float) -> DispatchPlan:
    buildings = [np.maximum(0.0, series.building_watts + margin * series.building_band_watts) for margin in MARGINS]
    its = [np.maximum(0.0, series.it_median_watts + margin * series.it_band_watts) for margin in MARGINS]
    loads = [building + site.pue * it for building, it in zip(buildings, its, strict=True)]
    solutions = solve_each(problem, loads)
    candidates = [
        Candidate(
            limit_watts=(1 - problem.headroom_fraction) * _limits(problem, solution, site),
            charge_watts=solution.charge_watts,
            charge_limit_watts=(1 - problem.headroom_fraction) * problem.charge_limit_watts,
            discharge_watts=solution.discharge_watts,
            grid_watts=solution.grid_watts,
            held_back_watts=site.pue * (solution.shed_watts - solution.recovered_watts),
        )
        for solution in solutions
    ]
    medians = series.building_watts + site.pue * series.it_median_watts
    costs = mean_costs(problem, candidates, np.maximum(0.0, medians + MET_FRACTION * series.errors))
    costs += [held_back_cost(problem, solution.shed_watts, solution.recovered_watts) for solution in solutions]
    best = int(np.argmin(costs))
    chosen = replace(problem, load_watts=loads[best])
    plan = _plan(chosen, solutions[best], series, buildings[best], site=site, now_wall_s=now_wall_s)
    return replace(plan, margin=MARGINS[best])


def _limits(problem: DispatchProblem, solution: DispatchSolution, site: SiteLimits) -> Values:
    """The import to defend in each slot."""
    levels = np.array([bound.billed_watts for bound in problem.demands]) + solution.new_peak_watts
    limits = np.minimum(slot_limits(problem.demands, levels, problem.load_watts.size), site.grid_limit_watts)
    return np.minimum(limits, problem.promised_watts)


class _Series:
    """The forecast from now on, as arrays of one entry per slot."""

    def __init__(
        self,
        forecast: LoadForecast,
        *,
        config: PlannerConfig,
        pue: float,
        now_wall_s: float,
        it_firm_watts: Sequence[float] | None,
    ) -> None:
        building, it = forecast.inflexible, forecast.it
        slot_s, n = building.slot_s, forecast.slots
        if (it.slot_s, it.start_wall_s) != (slot_s, building.start_wall_s):
            raise ValueError("the two forecasts do not speak of the same slots")
        starts = building.start_wall_s + slot_s * np.arange(n)
        left = np.minimum(slot_s, starts + slot_s - now_wall_s)
        ahead = left > slot_s * 1e-3
        if not ahead.any():
            raise ValueError("the forecast ends before now: nothing to plan")

        def level(series: SeriesForecast, quantile: float) -> Values:
            watts: Values = np.maximum(0.0, np.asarray(series.quantile(quantile), dtype=np.float64)[ahead])
            return watts

        self.slot_s, self.start_wall_s, self.duration_s = slot_s, starts[ahead], left[ahead]
        self.inflexible_watts = level(building, config.inflexible_quantile)
        self.it_watts = level(it, config.it_quantile)
        firm = np.zeros(n) if it_firm_watts is None else np.asarray(it_firm_watts, dtype=np.float64)
        self.sheddable_watts = np.maximum(0.0, self.it_watts - firm[ahead])
        self.low_watts = level(building, 0.1) + pue * level(it, 0.1)
        self.building_watts, self.it_median_watts = level(building, 0.5), level(it, 0.5)
        self.building_band_watts = level(building, 0.9) - self.building_watts
        self.it_band_watts = level(it, 0.9) - self.it_median_watts
        self.errors = _errors(building, it, pue)[:, ahead]
        """[past days, slots], grid side: load minus its median forecast."""


def _errors(building: SeriesForecast, it: SeriesForecast, pue: float) -> Values:
    """Of both forecasts together, day by day; a forecast without any (jobs that are known) adds nothing."""
    slots = len(building.quantile(0.5))
    days = min((len(series.errors) for series in (building, it) if len(series.errors)), default=0)
    total = np.zeros((days, slots))
    for series, factor in ((building, 1.0), (it, pue)):
        if len(series.errors):
            total += factor * np.asarray(series.errors, dtype=np.float64)[:days]
    return total


def _plan(
    problem: DispatchProblem,
    solution: DispatchSolution,
    series: _Series,
    building_watts: Values,
    *,
    site: SiteLimits,
    now_wall_s: float,
) -> DispatchPlan:
    limits = _limits(problem, solution, site)
    usable = (1 - problem.headroom_fraction) * limits
    for_it = usable - building_watts + solution.discharge_watts - solution.charge_watts
    envelope = np.clip(for_it / site.pue, 0.0, site.it_max_watts)
    columns = (
        series.start_wall_s,
        solution.grid_watts,
        solution.charge_watts,
        solution.discharge_watts,
        solution.stored_joules,
        building_watts,
        series.it_watts,
        solution.shed_watts,
        envelope,
        problem.price_per_kwh,
        solution.recovered_watts,
        limits,
        np.minimum(problem.charge_limit_watts, limits),
        np.isfinite(problem.promised_watts),
        _uncovered_watts(solution, usable, pue=site.pue),
    )
    return DispatchPlan(
        made_wall_s=now_wall_s,
        target_watts=float(limits[0]),
        slots=tuple(
            PlanSlot(start, series.slot_s, *rest)
            for start, *rest in zip(*(column.tolist() for column in columns), strict=True)
        ),
        cost=solution.cost,
        shortfalls=tuple(_shortfalls(problem, solution, series)),
    )


def _uncovered_watts(solution: DispatchSolution, usable_watts: Values, *, pue: float) -> Values:
    """What neither battery nor work held back brings under the limits, on the IT side."""
    over_watts = solution.grid_watts - usable_watts
    uncovered: Values = np.where(over_watts > _DUST_WATTS, over_watts / pue, 0.0)
    return uncovered


def _shortfalls(problem: DispatchProblem, solution: DispatchSolution, series: _Series) -> list[str]:
    """What the plan could not do, in words, with watts."""
    texts = []
    if not solution.solved:
        texts.append("the solver gave no plan: neither battery nor held-back work is planned")
    if problem.stored_joules is None:
        texts.append("the battery's state is unknown: planned without it")
    limits = [("grid limit", np.full(series.start_wall_s.size, problem.grid_limit_watts))]
    limits.append(("promised target", problem.promised_watts))
    for name, limit_watts in limits:
        excess = solution.grid_watts - limit_watts
        over = np.flatnonzero(excess > _DUST_WATTS)
        if over.size:
            texts.append(
                f"{name} {limit_watts[over[0]]:.0f} W: exceeded by up to {excess.max():.0f} W in {over.size} slots, "
                f"first at {series.start_wall_s[over[0]]:.0f}: battery and sheddable load are used up"
            )
    for bound, added_watts in zip(problem.demands, solution.new_peak_watts.tolist(), strict=True):
        if bound.billed_watts > 0 and added_watts > _DUST_WATTS:
            texts.append(
                f"the peak of {bound.name} rises from {bound.billed_watts:.0f} W to "
                f"{bound.billed_watts + added_watts:.0f} W: holding it costs more than it saves, or cannot be done"
            )
    missing = problem.battery.reserve_stored_joules - solution.stored_joules[-1]
    if problem.stored_joules is not None and missing > 1e-3 * problem.battery.capacity_joules:
        texts.append(f"the battery's reserve lacks {missing / 3.6e6:.3f} kWh at the end of the plan")
    return texts
