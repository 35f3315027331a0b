"""A recorded site load with a battery: the product's planner and fast layer, slot by slot, and what stands beside them.

Nothing of it sees ahead but `perfect_import` and the "perfect" forecast, which say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slurm_power.ess.battery import BatteryLimits, stored_after
from slurm_power.ess.bill import Bill, bill, metering_intervals
from slurm_power.ess.demand_bounds import demand_bounds
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.dispatch import plan_dispatch
from slurm_power.ess.dispatch_problem import DispatchProblem, solve
from slurm_power.ess.fast_dispatch import next_setpoint
from slurm_power.ess.guard import Following, SiteLimits, guard_setpoint
from slurm_power.ess.plan import DispatchPlan
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.rates import Rates, mean_prices
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.forecasting.forecast import LoadForecast, SeriesForecast, certain_forecast
from slurm_power.forecasting.grid import Series
from slurm_power.monitoring.local_time import Numbers
from slurm_power.monitoring.metering import MeteringInterval
from slurm_power.monitoring.readings import EssReading, GridReading

_BEYOND_ANY_SITE_WATTS = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLoad:
    """Mean watts per slot, without a battery, and what it is billed by."""

    start_wall_s: float
    slot_s: float
    watts: Numbers
    rates: Rates
    battery: BatteryLimits
    stored_joules: float  # when it begins

    @classmethod
    def of(cls, series: Series, *, rates: Rates, battery: BatteryLimits) -> SiteLoad:
        """The whole series; the battery is half full when it begins."""
        return cls(
            start_wall_s=series.start_wall_s,
            slot_s=series.slot_s,
            watts=series.watts,
            rates=rates,
            battery=battery,
            stored_joules=battery.half_full_joules,
        )

    def bill_of(self, import_watts: Numbers) -> Bill:
        intervals = metering_intervals(import_watts.tolist(), start_wall_s=self.start_wall_s, step_s=self.slot_s)
        return bill(intervals, tariff=self.rates)

    @property
    def starts(self) -> Numbers:
        return self.start_wall_s + self.slot_s * np.arange(self.watts.size, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class BatteryRun:
    import_watts: Numbers
    charge_watts: Numbers
    discharge_watts: Numbers
    stored_joules: Numbers  # at the end of each slot


Forecast = Callable[[int], SeriesForecast]
"""What is forecast at the start of slot i, knowing what was before it."""


def run_planned(
    case: SiteLoad,
    forecast: Forecast,
    *,
    config: PlannerConfig,
    outage: Callable[[int], bool] = lambda slot: False,
    progress: Callable[[float], None] = lambda share: None,
) -> BatteryRun:
    """Plan at each slot's start, then follow the live load through the slot as the controller does.

    In an `outage` the PCS does nothing and nobody knows its state.
    """
    site = SiteLimits(grid_limit_watts=_BEYOND_ANY_SITE_WATTS, it_max_watts=1.0, pue=1.0, command_s=case.slot_s)
    ledger, stored = DemandLedger(), case.stored_joules
    rows = np.empty((4, case.watts.size))
    for slot, (start_s, load_watts) in enumerate(zip(case.starts.tolist(), case.watts.tolist(), strict=True)):
        down = outage(slot)
        building = forecast(slot)
        nothing = (0.0,) * len(building.quantile(0.5))
        it = certain_forecast(nothing, start_wall_s=start_s, slot_s=case.slot_s, model="no IT load apart")
        plan = plan_dispatch(
            LoadForecast(building, it),
            rates=case.rates,
            ledger=ledger,
            battery=case.battery,
            site=site,
            config=config,
            now_wall_s=start_s,
            stored_joules=None if down else stored,
        )
        setpoint = EssSetpoint()
        if not down:
            setpoint, stored = followed(
                plan, battery=case.battery, site=site, start_s=start_s, load_watts=load_watts, stored_joules=stored
            )
        import_watts = load_watts + setpoint.charge_watts - setpoint.discharge_watts
        ledger = ledger.with_interval(case.rates, start_wall_s=start_s, watts=import_watts)
        rows[:, slot] = import_watts, setpoint.charge_watts, setpoint.discharge_watts, stored
        if slot % 96 == 0:
            progress(slot / case.watts.size)
    progress(1.0)
    return BatteryRun(*rows)


def followed(
    plan: DispatchPlan,
    *,
    battery: BatteryLimits,
    site: SiteLimits,
    start_s: float,
    load_watts: float,
    stored_joules: float,
) -> tuple[EssSetpoint, float]:
    """What fast layer and guard make of the load of the plan's slot at `start_s`, which they see while it lasts, and
    what is stored afterwards. One command lasts the whole slot: `site.command_s`."""
    limit_watts, slot_s = plan.limit_watts_at(start_s), site.command_s
    grid = GridReading(load_watts, 0.0, start_s)
    ess = EssReading(
        stored_joules / battery.capacity_joules,
        None,
        battery.capacity_joules,
        battery.max_charge_watts,
        battery.max_discharge_watts,
        0.0,
        0.0,
        True,
        (),
        start_s,
    )
    interval = MeteringInterval.starting(length_s=slot_s, max_gap_s=slot_s, wall_s=start_s)
    wanted = next_setpoint(
        plan.slot_at(start_s),
        target_watts=limit_watts,
        interval=interval,
        grid=grid,
        ess=ess,
        battery=battery,
        wall_s=start_s,
        command_s=slot_s,
    )
    setpoint = guard_setpoint(
        wanted.setpoint,
        state=Following(),
        grid=grid,
        ess=ess,
        target_watts=limit_watts,
        limits=site,
        battery=battery,
        now_s=start_s,
    ).setpoint
    return setpoint, stored_after(
        battery,
        stored_joules=stored_joules,
        charge_watts=setpoint.charge_watts,
        discharge_watts=setpoint.discharge_watts,
        duration_s=slot_s,
    )


def perfect_import(case: SiteLoad) -> BatteryRun:
    """The cheapest that is possible: one program over the whole record, every load known."""
    n = case.watts.size
    prices = mean_prices(case.rates, case.starts, np.full(n, case.slot_s))
    battery = case.battery
    solution = solve(
        DispatchProblem(
            slot_s=case.slot_s,
            duration_s=np.full(n, case.slot_s),
            load_watts=case.watts,
            sheddable_watts=np.zeros(n),
            recoverable_watts=np.zeros(n),
            wanted_watts=np.zeros(n),
            turnover_fraction=1.0,
            price_per_kwh=prices,
            demands=demand_bounds(case.rates, DemandLedger(), case.starts),
            charge_limit_watts=np.full(n, _BEYOND_ANY_SITE_WATTS),
            shed_price_per_kwh=0.0,
            delay_price_per_kwh_hour=0.0,
            pue=1.0,
            headroom_fraction=0.0,
            grid_limit_watts=_BEYOND_ANY_SITE_WATTS,
            promised_watts=np.full(n, np.inf),
            battery=battery,
            stored_joules=case.stored_joules,
            terminal_value_per_kwh=float(prices.mean()) * battery.discharge_efficiency,
            ramp_cost_fraction=0.0,
        )
    )
    if not solution.solved:
        raise ArithmeticError("the program of the whole record has no answer")
    return BatteryRun(solution.grid_watts, solution.charge_watts, solution.discharge_watts, solution.stored_joules)


def threshold_runs(case: SiteLoad, limits_watts: Numbers) -> Numbers:
    """[limits, slots] import of a controller that knows one threshold: discharge what is above it, charge whenever
    there is room below it (OpenEMS' peak shaving with both of its constants equal)."""
    battery = case.battery
    into, out, seconds = battery.charge_efficiency, battery.discharge_efficiency, case.slot_s
    stored = np.full(limits_watts.size, case.stored_joules)
    found = np.empty((limits_watts.size, case.watts.size))
    for slot, load in enumerate(case.watts.tolist()):
        can_give = np.maximum(0.0, stored - battery.min_stored_joules) * out / seconds
        discharge = np.clip(load - limits_watts, 0.0, np.minimum(battery.max_discharge_watts, can_give))
        can_take = np.maximum(0.0, battery.max_stored_joules - stored) / into / seconds
        charge = np.clip(limits_watts - load, 0.0, np.minimum(battery.max_charge_watts, can_take))
        stored = stored + (charge * into - discharge / out) * seconds
        found[:, slot] = load + charge - discharge
    return found


def best_threshold_bill(case: SiteLoad, *, tried: int = 60) -> float:
    """The bill of the best single threshold, found in hindsight."""
    highest = float(case.watts.max())
    limits = np.linspace(highest - 1.5 * case.battery.max_discharge_watts, highest, tried)
    return min(case.bill_of(imports).total for imports in threshold_runs(case, limits))


def perfect_forecast(case: SiteLoad, horizon: int) -> Forecast:
    """Of the next `horizon` slots; after the record's end its last day repeats."""
    longer = np.concatenate([case.watts, case.watts[-horizon:]])

    def forecast(slot: int) -> SeriesForecast:
        watts = tuple(longer[slot : slot + horizon].tolist())
        return certain_forecast(
            watts, start_wall_s=case.start_wall_s + slot * case.slot_s, slot_s=case.slot_s, model="perfect"
        )

    return forecast


def week_ago_forecast(history: Numbers, case: SiteLoad, horizon: int) -> Forecast:
    """As a week before, moved by how the last slots differed from theirs, without bands; `history` [slots] comes right
    before the case, at least eight days of it."""
    week = round(7 * 86_400 / case.slot_s)
    joined = np.concatenate([history, case.watts])
    ahead = np.arange(horizon)
    fading = np.exp(-ahead * case.slot_s / (3 * 3600.0))

    def forecast(slot: int) -> SeriesForecast:
        at = history.size + slot
        bias = float((joined[at - 4 : at] - joined[at - 4 - week : at - week]).mean())
        source = at + ahead - week * (ahead // week + 1)
        watts = tuple(np.maximum(0.0, joined[source] + bias * fading).tolist())
        start_s = case.start_wall_s + slot * case.slot_s
        return certain_forecast(watts, start_wall_s=start_s, slot_s=case.slot_s, model="a week ago")

    return forecast


def charge_created_peaks(case: SiteLoad, run: BatteryRun) -> int:
    """Demand charges whose peak was set while charging, above what the load alone would have set."""
    grid = case.rates.grid(case.starts)
    found = 0
    for component, member in enumerate(grid.demand):
        if case.rates.demand_components[component].tiers[-1].price <= 0:
            continue
        for period in np.unique(grid.period).tolist():
            at = np.flatnonzero(member & (grid.period == period))
            if at.size:
                highest = at[np.argmax(run.import_watts[at])]
                above = run.import_watts[highest] > case.watts[at].max() + 1.0
                found += bool(above and run.charge_watts[highest] > 0)
    return found


def limits_broken(case: SiteLoad, run: BatteryRun) -> int:
    """Slots in which energy or power left the battery's window, or power left the site."""
    battery, slack = case.battery, 1e-6 * case.battery.capacity_joules
    low = min(battery.min_stored_joules, case.stored_joules) - slack
    high = max(battery.max_stored_joules, case.stored_joules) + slack
    broken = (run.stored_joules < low) | (run.stored_joules > high) | (run.import_watts < -1e-6)
    broken |= (run.charge_watts > battery.max_charge_watts + 1e-6) | (run.charge_watts < 0)
    broken |= (run.discharge_watts > battery.max_discharge_watts + 1e-6) | (run.discharge_watts < 0)
    return int(broken.sum())


def months_of(case: SiteLoad, imports: Sequence[Numbers]) -> list[tuple[int, list[float]]]:
    """(billing period, its bill under each of the imports)."""
    bills = [case.bill_of(one) for one in imports]
    periods = np.unique(case.rates.grid(case.starts).period).tolist()
    found = []
    for period in periods:
        start = case.rates.period_start_wall_s(period)
        sums = [sum(line.money for line in one.lines if line.period_start_wall_s == start) for one in bills]
        found.append((period, sums))
    return found
