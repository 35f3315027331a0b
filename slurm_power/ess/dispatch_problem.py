"""The dispatch problem as numbers, and its linear program. kW, kWh and money per slot inside this file only.

Per slot: import + discharge - charge + PUE x (shed - recovered) = load. Work held back is done later in the
horizon or counts as unserved. Stored energy follows with both efficiencies. For every demand charge the import of
its hours stays below (1 - headroom) x (what is billed already + new peak). Import above the grid limit or a promised
target is possible but dearer than anything else, so the program always has an answer. A new peak may not exceed
what the load would set without a battery: charging never buys a peak of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.demand_bounds import DemandBound
from slurm_power.ess.linear_program import Column, LinearProgram, OpenProgram, Term, Values

_PROMISE_PENALTY = 10.0
"""How much dearer breaking the promised target is than the dearest other way out; the grid limit is so again."""

_IDLE_IS_BETTER = 1e-3
"""Of the mean energy price, added to what is discharged: where moving energy gains nothing, it stays."""

_FULL_IS_SAFER = 5e-3
"""Of the mean energy price, for each hour that a kWh lies stored: of two equal plans the one that charges sooner, for a
peak may come before it is foreseen. Far below any spread of prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchProblem:
    """All arrays have one entry per slot."""

    slot_s: float
    duration_s: Values  # what is left of the first slot, slot_s for the others
    load_watts: Values  # inflexible + IT x PUE
    sheddable_watts: Values  # IT side
    recoverable_watts: Values  # IT side: what could run beyond the forecast
    wanted_watts: Values  # IT side
    turnover_fraction: float  # of the flexible load that runs, what ends by itself in one slot; 1: all of it
    price_per_kwh: Values
    demands: tuple[DemandBound, ...]
    charge_limit_watts: Values  # no charging lifts the import above this: a peak of its own, if the load stays low
    shed_price_per_kwh: float
    delay_price_per_kwh_hour: float
    pue: float
    headroom_fraction: float
    grid_limit_watts: float
    promised_watts: Values  # to be kept whatever it costs; infinite: nothing is promised
    battery: BatteryLimits
    stored_joules: float | None
    terminal_value_per_kwh: float
    ramp_cost_fraction: float

    @property
    def dearest_demand_price_per_kw(self) -> float:
        """What one kW more in all hours of the horizon can cost at most: charges of the same hour add up."""
        if not self.demands:
            return 0.0
        prices = np.array([bound.price_per_kw for bound in self.demands])
        covers = np.stack([bound.covers for bound in self.demands])
        return float((prices[:, None] * covers).sum(axis=0).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSolution:
    grid_watts: Values
    charge_watts: Values
    discharge_watts: Values
    stored_joules: Values
    shed_watts: Values
    recovered_watts: Values
    new_peak_watts: Values  # per demand charge, above what is billed already
    cost: float
    solved: bool  # False: HiGHS gave up and this is the site without battery and without holding work back


def unmanaged_peak_watts(problem: DispatchProblem) -> Values:
    """Per demand charge: what the load alone would add to what is billed already, headroom included."""
    highest = np.array([float(problem.load_watts[bound.covers].max()) for bound in problem.demands])
    billed = np.array([bound.billed_watts for bound in problem.demands])
    added: Values = np.maximum(0.0, highest / (1 - problem.headroom_fraction) - billed)
    return added


def solve(problem: DispatchProblem) -> DispatchSolution:
    """The cheapest dispatch. Always answers."""
    return _Program(problem, presolve=True).solve(problem.load_watts)


def solve_each(problem: DispatchProblem, loads: Sequence[Values]) -> list[DispatchSolution]:
    """The cheapest dispatch for each of several loads (watts per slot), much sooner than as many `solve`."""
    program = _Program(problem, presolve=False)
    return [program.solve(load_watts) for load_watts in loads]


class _Program:
    def __init__(self, problem: DispatchProblem, *, presolve: bool) -> None:
        self._problem = problem
        n = problem.load_watts.size
        h = problem.duration_s / 3600.0  # kW x h = kWh
        mean_price = float(problem.price_per_kwh.mean())
        ramp_cost = problem.ramp_cost_fraction * max(mean_price, 1e-6) * problem.slot_s / 3600.0
        demand_price = problem.dearest_demand_price_per_kw
        dearest = (
            demand_price
            + (float(problem.price_per_kwh.max()) + problem.shed_price_per_kwh + problem.battery.wear_cost_per_kwh)
            * h.max()
        )
        # HiGHS stops at reduced costs of 1e-7: costs are counted in the price of one kW for one slot.
        unit = max(mean_price, 1e-3 * demand_price, 1e-6) * problem.slot_s / 3600.0
        lp = LinearProgram()
        grid = lp.variables(n, cost=problem.price_per_kwh * h / unit)
        self._shed, self._recovered = _held_back_work(lp, problem, h, mean_price=mean_price, unit=unit)
        prices = np.array([max(bound.price_per_kw, ramp_cost) for bound in problem.demands])
        self._peak = lp.variables(prices.size, cost=prices / unit)
        over_limit = lp.variables(n, cost=_PROMISE_PENALTY**2 * dearest / unit)
        self._charge, self._discharge = _battery(lp, problem, h, ramp_cost=ramp_cost, mean_price=mean_price, unit=unit)
        terms: list[Term] = [(grid, 1.0), (self._charge, -1.0), (self._discharge, 1.0)]
        if self._shed.size:
            terms += [(self._shed, problem.pue), (self._recovered, -problem.pue)]
        self._balance = lp.rows(terms, lower=0.0, upper=0.0)
        free = 1 - problem.headroom_fraction
        for bound, peak in zip(problem.demands, self._peak, strict=True):
            slots = np.flatnonzero(bound.covers)
            of_slots = np.full(slots.size, peak)
            lp.rows([(grid[slots], 1.0), (of_slots, -free)], upper=free * bound.billed_watts / 1000)
        lp.rows([(grid, 1.0), (over_limit, -1.0)], upper=free * problem.grid_limit_watts / 1000)
        kept = np.flatnonzero(np.isfinite(problem.promised_watts))
        if kept.size:
            over_promise = lp.variables(kept.size, cost=_PROMISE_PENALTY * dearest / unit)
            lp.rows([(grid[kept], 1.0), (over_promise, -1.0)], upper=free * problem.promised_watts[kept] / 1000)
        self._open: OpenProgram = lp.open(presolve=presolve)

    def solve(self, load_watts: Values) -> DispatchSolution:
        problem = replace(self._problem, load_watts=load_watts)
        self._open.fix_rows(self._balance, load_watts / 1000)
        if self._peak.size:
            self._open.bound_columns(self._peak, upper=unmanaged_peak_watts(problem) / 1000)
        if problem.stored_joules is not None:
            free = (1 - problem.headroom_fraction) * problem.charge_limit_watts
            room_watts = np.clip(free - load_watts, 0.0, problem.battery.max_charge_watts)
            self._open.bound_columns(self._charge, upper=room_watts / 1000)
        values = self._open.solve()
        if values is None:
            return _unsolved(problem)
        nothing = np.zeros(load_watts.size)
        return _solution(
            problem,
            shed_kw=values[self._shed] if self._shed.size else nothing,
            recovered_kw=values[self._recovered] if self._shed.size else nothing,
            charge_kw=values[self._charge],
            discharge_kw=values[self._discharge],
            peak_kw=values[self._peak],
        )


def _held_back_work(
    lp: LinearProgram, problem: DispatchProblem, h: Values, *, mean_price: float, unit: float
) -> tuple[Column, Column]:
    """What is held back, and when it is done after all.

    What is not done within the horizon costs so much that holding back the base load of the whole horizon
    never pays for a lower peak (the horizon sees all of the demand charge, but only its own part of the work).
    Without anything to hold back there are no such variables.
    """
    if not problem.sheddable_watts.any():
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    n, horizon_h = h.size, float(h.sum())
    unserved_price = (
        2 * problem.dearest_demand_price_per_kw / horizon_h
        + problem.shed_price_per_kwh
        + float(problem.price_per_kwh.max())
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
    worth = -_FULL_IS_SAFER * mean_price * h / unit
    worth[-1] -= problem.terminal_value_per_kwh / unit
    stored = lp.variables(
        n, cost=worth, lower=min(reserve_kwh, now_kwh), upper=max(limits.max_stored_joules / 3.6e6, now_kwh)
    )
    into, out = limits.charge_efficiency * h, h / limits.discharge_efficiency
    lost_kwh = limits.standby_loss_watts / 1000 * h if known else np.zeros(n)
    first: list[Term] = [(stored[:1], 1.0), (charge[:1], -into[:1]), (discharge[:1], out[:1])]
    later: list[Term] = [(stored[1:], 1.0), (stored[:-1], -1.0), (charge[1:], -into[1:]), (discharge[1:], out[1:])]
    if lost_kwh.any():  # where nothing may be charged against it, the loss goes below what may be used
        unpaid = lp.variables(n, cost=2 * mean_price / unit, upper=lost_kwh)
        first.append((unpaid[:1], -1.0))
        later.append((unpaid[1:], -1.0))
    lp.rows(first, lower=now_kwh - lost_kwh[0], upper=now_kwh - lost_kwh[0])
    if n > 1:
        lp.rows(later, lower=-lost_kwh[1:], upper=-lost_kwh[1:])
        if ramp_cost > 0:
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
    *,
    shed_kw: Values,
    recovered_kw: Values,
    charge_kw: Values,
    discharge_kw: Values,
    peak_kw: Values,
) -> DispatchSolution:
    charge_watts, discharge_watts = _netted(problem.battery, charge_kw * 1000, discharge_kw * 1000)
    later_watts = recovered_kw * 1000
    both_watts = np.minimum(shed_kw * 1000, later_watts)
    shed_watts = np.clip(shed_kw * 1000 - both_watts, 0.0, problem.sheddable_watts)
    recovered_watts = np.clip(later_watts - both_watts, 0.0, None)
    it_watts = problem.pue * (recovered_watts - shed_watts)
    grid_watts = np.maximum(0.0, problem.load_watts + it_watts + charge_watts - discharge_watts)
    new_peak_watts = np.clip(peak_kw * 1000, 0.0, unmanaged_peak_watts(problem))
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
    into = into - battery.standby_loss_watts
    stored: Values = (problem.stored_joules or 0.0) + np.cumsum(into * problem.duration_s)
    return np.maximum(0.0, stored)


def held_back_cost(problem: DispatchProblem, shed_watts: Values, recovered_watts: Values) -> float:
    """Money for work that is held back, and for how long it waits."""
    kwh = problem.duration_s / 3.6e6
    waiting_kwh = np.maximum(0.0, np.cumsum((shed_watts - recovered_watts) * kwh))
    delay = waiting_kwh * problem.duration_s / 3600.0 * problem.delay_price_per_kwh_hour
    return float((shed_watts * kwh * problem.shed_price_per_kwh + delay).sum())


def _cost(
    problem: DispatchProblem,
    grid_watts: Values,
    discharge_watts: Values,
    shed_watts: Values,
    recovered_watts: Values,
    new_peak_watts: Values,
) -> float:
    """Money: energy, wear, held-back work and how long it waits, and new peaks."""
    kwh = problem.duration_s / 3.6e6
    energy = grid_watts * kwh * problem.price_per_kwh
    wear = discharge_watts * kwh * problem.battery.wear_cost_per_kwh
    demand = sum(kw * bound.price_per_kw for kw, bound in zip(new_peak_watts / 1000, problem.demands, strict=True))
    return float((energy + wear).sum() + demand) + held_back_cost(problem, shed_watts, recovered_watts)
