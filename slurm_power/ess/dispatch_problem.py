"""The dispatch problem as numbers, and its linear program. kW, kWh and money per slot inside this file only.

Per slot: import + discharge - charge + PUE x (shed - recovered) = load. Work held back is done later in the
horizon or counts as unserved. Stored energy follows with both efficiencies. The import stays below
(1 - headroom) x (peak already set + new peak). Import above the grid limit or a promised target is possible
but dearer than anything else, so the program always has an answer. The new peak may not exceed what the load
would set without a battery: charging never buys a peak of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.linear_program import Column, LinearProgram, Values

_PROMISE_PENALTY = 10.0
"""How much dearer breaking the promised target is than the dearest other way out; the grid limit is so again."""

_IDLE_IS_BETTER = 1e-3
"""Of the mean energy price, added to what is discharged: where moving energy gains nothing, it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchProblem:
    """All arrays have one entry per slot, except `incumbent_watts`: one per billing period touched."""

    slot_s: float
    duration_s: Values  # what is left of the first slot, slot_s for the others
    load_watts: Values  # inflexible + IT x PUE
    sheddable_watts: Values  # IT side
    recoverable_watts: Values  # IT side: what could run beyond the forecast
    wanted_watts: Values  # IT side
    turnover_fraction: float  # of the flexible load that runs, what ends by itself in one slot; 1: all of it
    price_per_kwh: Values
    billing_period: Column  # index into incumbent_watts
    incumbent_watts: Values
    demand_price_per_kw: float
    shed_price_per_kwh: float
    delay_price_per_kwh_hour: float
    pue: float
    headroom_fraction: float
    grid_limit_watts: float
    promised_watts: float | None
    battery: BatteryLimits
    stored_joules: float | None
    terminal_value_per_kwh: float
    ramp_cost_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSolution:
    grid_watts: Values
    charge_watts: Values
    discharge_watts: Values
    stored_joules: Values
    shed_watts: Values
    recovered_watts: Values
    new_peak_watts: Values  # per billing period, above its incumbent
    cost: float
    solved: bool  # False: HiGHS gave up and this is the site without battery and without holding work back


def unmanaged_peak_watts(problem: DispatchProblem) -> Values:
    """Per billing period: what the load alone would add to the incumbent, headroom included."""
    peak = np.zeros(problem.incumbent_watts.size)
    np.maximum.at(peak, problem.billing_period, problem.load_watts / (1 - problem.headroom_fraction))
    return np.maximum(0.0, peak - problem.incumbent_watts)


def solve(problem: DispatchProblem) -> DispatchSolution:
    """The cheapest dispatch. Always answers."""
    n = problem.load_watts.size
    h = problem.duration_s / 3600.0  # kW x h = kWh
    mean_price = float(problem.price_per_kwh.mean())
    ramp_cost = problem.ramp_cost_fraction * max(mean_price, 1e-6) * problem.slot_s / 3600.0
    dearest = (
        problem.demand_price_per_kw
        + (float(problem.price_per_kwh.max()) + problem.shed_price_per_kwh + problem.battery.wear_cost_per_kwh)
        * h.max()
    )
    # HiGHS stops at reduced costs of 1e-7: costs are counted in the price of one kW for one slot.
    unit = max(mean_price, 1e-3 * problem.demand_price_per_kw, 1e-6) * problem.slot_s / 3600.0
    lp = LinearProgram()
    grid = lp.variables(n, cost=problem.price_per_kwh * h / unit)
    shed, recovered = _held_back_work(lp, problem, h, mean_price=mean_price, unit=unit)
    peak = lp.variables(
        problem.incumbent_watts.size,
        cost=max(problem.demand_price_per_kw, ramp_cost) / unit,
        upper=unmanaged_peak_watts(problem) / 1000,
    )
    over_limit = lp.variables(n, cost=_PROMISE_PENALTY**2 * dearest / unit)
    charge, discharge = _battery(lp, problem, h, ramp_cost=ramp_cost, mean_price=mean_price, unit=unit)
    lp.rows(
        [(grid, 1.0), (charge, -1.0), (discharge, 1.0), (shed, problem.pue), (recovered, -problem.pue)],
        lower=problem.load_watts / 1000,
        upper=problem.load_watts / 1000,
    )
    free = 1 - problem.headroom_fraction
    incumbent = problem.incumbent_watts[problem.billing_period] / 1000
    lp.rows([(grid, 1.0), (peak[problem.billing_period], -free)], upper=free * incumbent)
    lp.rows([(grid, 1.0), (over_limit, -1.0)], upper=free * problem.grid_limit_watts / 1000)
    if problem.promised_watts is not None:
        over_promise = lp.variables(n, cost=_PROMISE_PENALTY * dearest / unit)
        lp.rows([(grid, 1.0), (over_promise, -1.0)], upper=free * problem.promised_watts / 1000)
    values = lp.solve()
    if values is None:
        return _unsolved(problem)
    return _solution(problem, values, shed=shed, recovered=recovered, charge=charge, discharge=discharge, peak=peak)


def _held_back_work(
    lp: LinearProgram, problem: DispatchProblem, h: Values, *, mean_price: float, unit: float
) -> tuple[Column, Column]:
    """What is held back, and when it is done after all.

    What is not done within the horizon costs so much that holding back the base load of the whole horizon
    never pays for a lower peak (the horizon sees all of the demand charge, but only its own part of the work).
    """
    n, horizon_h = h.size, float(h.sum())
    unserved_price = (
        2 * problem.demand_price_per_kw / horizon_h + problem.shed_price_per_kwh + float(problem.price_per_kwh.max())
    )
    shed = lp.variables(n, cost=problem.shed_price_per_kwh * h / unit, upper=problem.sheddable_watts / 1000)
    recovered = lp.variables(n, upper=problem.recoverable_watts / 1000)
    holding = _IDLE_IS_BETTER * mean_price + problem.delay_price_per_kwh_hour * h  # the sooner it is done the better
    holding[-1] += unserved_price
    backlog = lp.variables(n, cost=holding / unit)
    lp.rows([(backlog[:1], 1.0), (shed[:1], -h[:1]), (recovered[:1], h[:1])], lower=0.0, upper=0.0)
    if n > 1:
        lp.rows(
            [(backlog[1:], 1.0), (backlog[:-1], -1.0), (shed[1:], -h[1:]), (recovered[1:], h[1:])], lower=0.0, upper=0.0
        )
        _started_work_runs_on(lp, problem, shed, recovered, stop_cost=unserved_price * h[1:] / unit)
    return shed, recovered


def _started_work_runs_on(
    lp: LinearProgram, problem: DispatchProblem, shed: Column, recovered: Column, *, stop_cost: Values
) -> None:
    """From slot to slot flexible work cannot fall faster than jobs end by themselves; newly wanted work can wait.

    Stopping more is possible, but dear. Without this a plan would run everything now and promise to stop it
    before the peak.
    """
    stays = 1.0 - problem.turnover_fraction
    new_watts = np.maximum(0.0, np.diff(problem.wanted_watts))
    ends_watts = problem.turnover_fraction * problem.sheddable_watts[:-1]
    stopped = lp.variables(shed.size - 1, cost=stop_cost)
    lp.rows(
        [(shed[1:], 1.0), (recovered[1:], -1.0), (shed[:-1], -stays), (recovered[:-1], stays), (stopped, -1.0)],
        upper=(ends_watts + new_watts) / 1000,
    )


def _battery(
    lp: LinearProgram, problem: DispatchProblem, h: Values, *, ramp_cost: float, mean_price: float, unit: float
) -> tuple[Column, Column]:
    """Charge and discharge, with the energy (kWh at the end of each slot) that ties them together."""
    limits, n = problem.battery, h.size
    known = problem.stored_joules is not None
    now_kwh = (problem.stored_joules or 0.0) / 3.6e6
    reserve_kwh = limits.reserve_stored_joules / 3.6e6
    charge = lp.variables(n, upper=limits.max_charge_watts / 1000 if known else 0.0)
    discharge = lp.variables(
        n,
        cost=(limits.wear_cost_per_kwh + _IDLE_IS_BETTER * mean_price) * h / unit,
        upper=limits.max_discharge_watts / 1000 if known else 0.0,
    )
    worth = np.zeros(n)
    worth[-1] = -problem.terminal_value_per_kwh / unit
    stored = lp.variables(
        n, cost=worth, lower=min(reserve_kwh, now_kwh), upper=max(limits.max_stored_joules / 3.6e6, now_kwh)
    )
    into, out = limits.charge_efficiency * h, h / limits.discharge_efficiency
    lp.rows([(stored[:1], 1.0), (charge[:1], -into[:1]), (discharge[:1], out[:1])], lower=now_kwh, upper=now_kwh)
    if n > 1:
        lp.rows(
            [(stored[1:], 1.0), (stored[:-1], -1.0), (charge[1:], -into[1:]), (discharge[1:], out[1:])],
            lower=0.0,
            upper=0.0,
        )
        ramp = lp.variables(n - 1, cost=ramp_cost / unit)
        change = [(discharge[1:], 1.0), (charge[1:], -1.0), (discharge[:-1], -1.0), (charge[:-1], 1.0)]
        lp.rows([(ramp, 1.0), *change], lower=0.0)
        lp.rows([(ramp, 1.0), *((columns, -sign) for columns, sign in change)], lower=0.0)
    if known:
        missing = lp.variables(1, cost=mean_price / unit)
        lp.rows([(stored[-1:], 1.0), (missing, 1.0)], lower=reserve_kwh)
    return charge, discharge


def _solution(
    problem: DispatchProblem,
    values: Values,
    *,
    shed: Column,
    recovered: Column,
    charge: Column,
    discharge: Column,
    peak: Column,
) -> DispatchSolution:
    charge_watts, discharge_watts = _netted(problem.battery, values[charge] * 1000, values[discharge] * 1000)
    later_watts = values[recovered] * 1000
    both_watts = np.minimum(values[shed] * 1000, later_watts)
    shed_watts = np.clip(values[shed] * 1000 - both_watts, 0.0, problem.sheddable_watts)
    recovered_watts = np.clip(later_watts - both_watts, 0.0, None)
    it_watts = problem.pue * (recovered_watts - shed_watts)
    grid_watts = np.maximum(0.0, problem.load_watts + it_watts + charge_watts - discharge_watts)
    new_peak_watts = np.clip(values[peak] * 1000, 0.0, unmanaged_peak_watts(problem))
    return DispatchSolution(
        grid_watts=grid_watts,
        charge_watts=charge_watts,
        discharge_watts=discharge_watts,
        stored_joules=_stored_joules(problem, charge_watts, discharge_watts),
        shed_watts=shed_watts,
        recovered_watts=recovered_watts,
        new_peak_watts=new_peak_watts,
        cost=_cost(problem, grid_watts, discharge_watts, shed_watts, recovered_watts, new_peak_watts),
        solved=True,
    )


def _unsolved(problem: DispatchProblem) -> DispatchSolution:
    nothing = np.zeros(problem.load_watts.size)
    new_peak_watts = unmanaged_peak_watts(problem)
    return DispatchSolution(
        grid_watts=problem.load_watts,
        charge_watts=nothing,
        discharge_watts=nothing,
        stored_joules=_stored_joules(problem, nothing, nothing),
        shed_watts=nothing,
        recovered_watts=nothing,
        new_peak_watts=new_peak_watts,
        cost=_cost(problem, problem.load_watts, nothing, nothing, nothing, new_peak_watts),
        solved=False,
    )


def _netted(battery: BatteryLimits, charge_watts: Values, discharge_watts: Values) -> tuple[Values, Values]:
    """The same stored energy without charging and discharging at once; solver dust below 1 mW becomes zero."""
    into = charge_watts * battery.charge_efficiency - discharge_watts / battery.discharge_efficiency
    charge = np.where(into > 0, into / battery.charge_efficiency, 0.0)
    discharge = np.where(into < 0, -into * battery.discharge_efficiency, 0.0)
    charge[charge < 1e-3] = 0.0
    discharge[discharge < 1e-3] = 0.0
    return np.minimum(charge, battery.max_charge_watts), np.minimum(discharge, battery.max_discharge_watts)


def _stored_joules(problem: DispatchProblem, charge_watts: Values, discharge_watts: Values) -> Values:
    battery = problem.battery
    into = charge_watts * battery.charge_efficiency - discharge_watts / battery.discharge_efficiency
    stored: Values = (problem.stored_joules or 0.0) + np.cumsum(into * problem.duration_s)
    return np.maximum(0.0, stored)


def _cost(
    problem: DispatchProblem,
    grid_watts: Values,
    discharge_watts: Values,
    shed_watts: Values,
    recovered_watts: Values,
    new_peak_watts: Values,
) -> float:
    """Money: energy, wear, held-back work and how long it waits, and the new peak."""
    kwh = problem.duration_s / 3.6e6
    energy = grid_watts * kwh * problem.price_per_kwh
    wear = discharge_watts * kwh * problem.battery.wear_cost_per_kwh
    shed = shed_watts * kwh * problem.shed_price_per_kwh
    waiting_kwh = np.maximum(0.0, np.cumsum((shed_watts - recovered_watts) * kwh))
    delay = waiting_kwh * problem.duration_s / 3600.0 * problem.delay_price_per_kwh_hour
    return float((energy + wear + shed + delay).sum() + new_peak_watts.sum() / 1000 * problem.demand_price_per_kw)
