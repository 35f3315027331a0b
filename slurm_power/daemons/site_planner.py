"""The middle of the tick: what the site will draw, and what to do about it. Hands facts to the pure planners."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.silent_nodes import with_silent_nodes
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.dispatch import plan_dispatch
from slurm_power.ess.grid_event import GridEvent
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.plan import DispatchPlan
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.rates import Rates
from slurm_power.forecasting.forecast import Forecaster, LoadForecast, SeriesForecast
from slurm_power.forecasting.jobs import ItDraw, RunningDraw, forecast_it_load
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.monitoring.readings import NodeReading, Snapshot
from slurm_power.relocation.jobs import Job, LicenseReservation, Node
from slurm_power.relocation.planner import expected_it_draw, firm_it_watts
from slurm_power.relocation.runtimes import typical_runtime_s
from slurm_power.relocation.settings import RelocationConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """The tables of the site's config that the tick plans with."""

    controller: ControllerConfig
    site: SiteLimits
    rates: Rates
    battery: BatteryLimits
    planner: PlannerConfig
    forecast: ForecastConfig
    relocation: RelocationConfig


@dataclass(frozen=True, slots=True)
class SlurmState:
    """What Slurm answered, and every node that it counts as up: those whose agent is silent with unknown readings."""

    jobs: Sequence[Job]
    reservations: Sequence[LicenseReservation]
    nodes: Sequence[Node]
    readings: Mapping[str, NodeReading]

    def seen_with(self, readings: Mapping[str, NodeReading]) -> SlurmState:
        return replace(self, readings=with_silent_nodes(readings, self.nodes))


@dataclass(frozen=True, slots=True)
class Forecasters:
    """One for each series: what they learned of one is not true of the other."""

    building: Forecaster
    it: Forecaster


class SitePlanner:
    def __init__(
        self, settings: Settings, *, history: SiteHistory, forecasters: Forecasters, billing: BillingState
    ) -> None:
        self._settings, self._history = settings, history
        self._forecasters, self._billing = forecasters, billing

    def predict(
        self,
        snapshot: Snapshot,
        slurm: SlurmState | None,
        failures: dict[str, str],
        *,
        held_back_watts: float = 0.0,
    ) -> LoadForecast | None:
        """None: nothing was ever measured. Without Slurm the IT load is forecast from its history alone.

        `held_back_watts`: what running jobs would draw more without the budgets of their pools."""
        planner = self._settings.planner
        start_wall_s = math.floor(snapshot.wall_s / planner.slot_s) * planner.slot_s
        building = [sample for sample in self._history.inflexible() if sample.start_wall_s < start_wall_s]
        it_load = [sample for sample in self._history.it_wanted() if sample.start_wall_s < start_wall_s]
        if not building:
            failures["forecast"] = "no history of grid, PCS and all nodes together yet"
            return None
        of, slots = self._forecasters, planner.slots
        inflexible = of.building.forecast(building, start_wall_s=start_wall_s, slots=slots)
        usual = of.it.forecast(it_load, start_wall_s=start_wall_s, slots=slots) if it_load else None
        if slurm is None:
            return None if usual is None else LoadForecast(inflexible=inflexible, it=usual)
        draw = expected_it_draw(
            jobs=slurm.jobs, nodes=slurm.readings, wall_s=snapshot.wall_s, config=self._settings.relocation
        )
        draw = replace(draw, running=(*draw.running, RunningDraw(held_back_watts, None)))
        return LoadForecast(inflexible=inflexible, it=self._it_forecast(draw, usual, start_wall_s))

    def _it_forecast(self, draw: ItDraw, usual: SeriesForecast | None, start_wall_s: float) -> SeriesForecast:
        settings = self._settings
        return forecast_it_load(
            draw,
            usual=usual,
            it_max_watts=settings.site.it_max_watts,
            start_wall_s=start_wall_s,
            slot_s=settings.planner.slot_s,
            slots=settings.planner.slots,
            config=settings.forecast,
        )

    def plan(
        self, snapshot: Snapshot, forecast: LoadForecast, slurm: SlurmState | None, events: Sequence[GridEvent]
    ) -> DispatchPlan:
        settings, ess = self._settings, snapshot.ess
        return plan_dispatch(
            forecast,
            rates=settings.rates,
            ledger=self._billing.ledger,
            battery=settings.battery if ess is None else settings.battery.holding(ess.capacity_joules),
            site=settings.site,
            config=settings.planner,
            now_wall_s=snapshot.wall_s,
            stored_joules=None if ess is None else ess.stored_fraction * ess.capacity_joules,
            events=events,
            typical_runtime_s=None if slurm is None else typical_runtime_s(slurm.jobs),
            it_firm_watts=None if slurm is None else self._firm_watts(slurm, forecast.it, snapshot.wall_s),
        )

    def _firm_watts(self, slurm: SlurmState, it: SeriesForecast, wall_s: float) -> Sequence[float]:
        return firm_it_watts(
            jobs=slurm.jobs,
            nodes=slurm.readings,
            start_wall_s=it.start_wall_s,
            slot_s=it.slot_s,
            slots=len(it.quantile(0.5)),
            wall_s=wall_s,
            config=self._settings.relocation,
        )
