"""How plans fare when the load comes otherwise: the fast layer's rule, played over past forecast errors. Pure.

A limit that is too low empties the battery before the peak is over; one that is too high pays for a peak that could
have been shaved. Which is worse is decided by playing each candidate over how the load has differed from its forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slurm_power.ess.dispatch_problem import DispatchProblem
from slurm_power.ess.fast_dispatch import AT_TARGET_FRACTION
from slurm_power.monitoring.local_time import Numbers, Truths


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A plan as the fast layer follows it; arrays of one entry per slot, in watts."""

    limit_watts: Numbers
    charge_watts: Numbers
    charge_limit_watts: Numbers
    discharge_watts: Numbers
    grid_watts: Numbers
    held_back_watts: Numbers  # grid side: what relocation keeps away, negative where it is caught up

    @property
    def discharges_for_price(self) -> Truths:
        found: Truths = self.grid_watts < AT_TARGET_FRACTION * self.limit_watts
        return found


def mean_costs(problem: DispatchProblem, candidates: Sequence[Candidate], loads_watts: Numbers) -> Numbers:
    """Per candidate the mean cost over the loads [loads, slots] (grid side, without battery): energy, new peaks, wear,
    less the worth of what is stored in the end. The problem must know the battery's state."""
    imports, discharged, stored = _play(problem, candidates, loads_watts)
    kwh = problem.duration_s / 3.6e6
    cost = np.tensordot(problem.price_per_kwh * kwh, imports, 1)
    cost += np.tensordot(kwh, discharged, 1) * problem.battery.wear_cost_per_kwh
    cost -= stored / 3.6e6 * problem.terminal_value_per_kwh
    for bound in problem.demands:
        over_watts = np.maximum(0.0, imports[bound.covers].max(axis=0) - bound.billed_watts)
        cost += bound.price_per_kw * over_watts / 1000
    mean: Numbers = cost.mean(axis=1)
    return mean


def _play(
    problem: DispatchProblem, candidates: Sequence[Candidate], loads_watts: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """(import [slots, candidates, loads], discharge likewise, energy stored in the end [candidates, loads])."""
    battery = problem.battery
    into, out = battery.charge_efficiency, battery.discharge_efficiency
    load = loads_watts.T[:, None, :] - np.stack([c.held_back_watts for c in candidates], axis=1)[:, :, None]
    load = np.maximum(0.0, load)
    limits = np.stack([c.limit_watts for c in candidates], axis=1)[:, :, None]
    charge_limits = np.stack([np.minimum(c.limit_watts, c.charge_limit_watts) for c in candidates], axis=1)[:, :, None]
    charges = np.stack([c.charge_watts for c in candidates], axis=1)[:, :, None]
    for_price = np.stack([np.where(c.discharges_for_price, c.discharge_watts, 0.0) for c in candidates], axis=1)
    stored = np.full(load.shape[1:], problem.stored_joules)
    imports, discharged = np.empty_like(load), np.empty_like(load)
    for slot, seconds in enumerate(problem.duration_s.tolist()):
        can_give = np.maximum(0.0, stored - battery.min_stored_joules) * (out / seconds)
        can_give = np.minimum(np.minimum(can_give, battery.max_discharge_watts), load[slot])
        discharge = np.minimum(np.maximum(load[slot] - limits[slot], for_price[slot][:, None]), can_give)
        discharge = np.maximum(0.0, discharge)
        can_take = np.maximum(0.0, battery.max_stored_joules - stored) / (into * seconds)
        charge = np.minimum(np.minimum(charges[slot], can_take), charge_limits[slot] - load[slot])
        charge = np.where(discharge > 0, 0.0, np.maximum(0.0, charge))
        imports[slot], discharged[slot] = load[slot] - discharge + charge, discharge
        stored = np.maximum(0.0, stored + (charge * into - discharge / out - battery.standby_loss_watts) * seconds)
    return imports, discharged, stored
