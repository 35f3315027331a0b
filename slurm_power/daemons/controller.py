"""slurm-powerd: the slow tick. Observe, predict, plan, relocate, act, record; nothing here decides."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slurm_power.daemons import controller_view as views
from slurm_power.daemons.agent_registry import AgentRegistry
from slurm_power.daemons.battery_loop import BatteryLoop
from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.controller_record import decision_points, plan_points, site_point
from slurm_power.daemons.controller_view import ControllerView, Event
from slurm_power.daemons.silent_nodes import with_silent_nodes
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.daemons.slurm_actions import apply_relocation
from slurm_power.errors import Unavailable
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.dispatch import plan_dispatch
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.plan import DispatchPlan
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import Tariff
from slurm_power.forecasting.forecast import Forecaster, LoadForecast, SeriesForecast
from slurm_power.forecasting.jobs import forecast_it_load
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.monitoring.readings import NodeReading, Snapshot, fresh
from slurm_power.monitoring.site_balance import inflexible_watts, it_draw_watts
from slurm_power.ports.clock import Clock
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.relocation.jobs import Job, LicenseReservation, Node
from slurm_power.relocation.plan import RelocationPlan
from slurm_power.relocation.planner import expected_it_draw, firm_it_watts, plan_relocation
from slurm_power.relocation.runtimes import typical_runtime_s
from slurm_power.relocation.settings import RelocationConfig

log = logging.getLogger(__name__)

EVENTS_KEPT = 2000


@dataclass(frozen=True, slots=True)
class Settings:
    """The tables of the site's config that the tick plans with."""

    controller: ControllerConfig
    site: SiteLimits
    tariff: Tariff
    battery: BatteryLimits
    planner: PlannerConfig
    forecast: ForecastConfig
    relocation: RelocationConfig


@dataclass(frozen=True, slots=True)
class SlurmState:
    jobs: Sequence[Job]
    reservations: Sequence[LicenseReservation]
    nodes: Sequence[Node]


class Controller:
    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        slurm: SlurmClient,
        store: TelemetryStore,
        registry: AgentRegistry,
        battery_loop: BatteryLoop,
        billing: BillingState,
        history: SiteHistory,
        forecaster: Forecaster,
    ) -> None:
        self._settings = settings
        self._clock, self._slurm, self._store = clock, slurm, store
        self._registry, self._battery_loop = registry, battery_loop
        self._billing, self._history, self._forecaster = billing, history, forecaster
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._job_caps: dict[int, float] | None = None  # None: just started, nobody has told us which caps hold
        self._expected_nodes: frozenset[str] = frozenset()
        self._held_back_watts = 0.0  # IT draw that our own actions keep away: tomorrow must not forget it
        self._view = ControllerView(mode=settings.controller.mode)
        self._lock = threading.Lock()

    # -- the two loops ---------------------------------------------------------------------------

    def tick(self) -> None:
        failures: dict[str, str] = {}
        slurm = self._ask_slurm(failures)
        snapshot = self._observe(failures)
        forecast = self._predict(snapshot, slurm, failures)
        plan = self._plan(snapshot, forecast, slurm)
        relocation = self._relocate(snapshot, plan, slurm)
        events = self._act(snapshot, relocation, slurm)
        self._record(snapshot, plan, relocation, slurm, events)

    def fast_tick(self) -> None:
        self._battery_loop.step()
        fast, wall_s = self._battery_loop.view(), self._clock.wall_s()
        it_watts = self._it_watts(self._fresh_nodes())
        grid = fresh(fast.grid, now_s=self._clock.now_s(), max_age_s=self._max_age_s)
        ess = fresh(fast.ess, now_s=self._clock.now_s(), max_age_s=self._max_age_s)
        building_watts = inflexible_watts(grid, ess=ess, it_watts=it_watts, pue=self._settings.site.pue)
        wanted_watts = None if it_watts is None else it_watts + self._held_back_watts
        with self._lock:
            self._history.add(wall_s, inflexible_watts=building_watts, it_wanted_watts=wanted_watts)
        point = site_point(
            fast,
            self._view.plan,
            it_watts=it_watts,
            it_wanted_watts=wanted_watts,
            inflexible_watts=building_watts,
            wall_s=wall_s,
        )
        if point is not None:
            self._store.write([point])

    def close(self) -> None:
        """What we asked of Slurm, agents and PCS ends by itself; what we know is saved."""
        self._billing.save()
        self._store.close()

    # -- the tick's steps ------------------------------------------------------------------------

    def _ask_slurm(self, failures: dict[str, str]) -> SlurmState | None:
        try:
            nodes = self._slurm.nodes()
            jobs, reservations = self._slurm.jobs(), self._slurm.license_reservations()
        except Unavailable as failure:
            failures["slurm"] = str(failure)
            return None
        self._expected_nodes = frozenset(node.node_name for node in nodes if node.up and node.gpus > 0)
        for node in nodes:
            if node.is_lost:
                failures[f"node {node.node_name}"] = f"Slurm says {node.state}: nobody knows how its jobs do"
        return SlurmState(jobs, reservations, nodes)

    def _observe(self, failures: dict[str, str]) -> Snapshot:
        fast, now_s = self._battery_loop.view(), self._clock.now_s()
        munge_trouble = self._registry.trouble()
        if munge_trouble is not None:
            failures["munge"] = f"{munge_trouble}: no agent can report"
        nodes = self._fresh_nodes()
        for missing in sorted(self._expected_nodes - nodes.keys()):
            failures[f"node {missing}"] = "its agent does not report: what it draws is unknown"
        return Snapshot(
            now_s=now_s,
            wall_s=self._clock.wall_s(),
            grid=fresh(fast.grid, now_s=now_s, max_age_s=self._max_age_s),
            ess=fresh(fast.ess, now_s=now_s, max_age_s=self._max_age_s),
            nodes=nodes,
            failures=failures,
        )

    def _predict(self, snapshot: Snapshot, slurm: SlurmState | None, failures: dict[str, str]) -> LoadForecast | None:
        """None: nothing was ever measured. Without Slurm the IT load is forecast from its history alone."""
        planner = self._settings.planner
        start_wall_s = math.floor(snapshot.wall_s / planner.slot_s) * planner.slot_s
        with self._lock:
            building, it_load = self._history.inflexible(), self._history.it_wanted()
        building = [sample for sample in building if sample.start_wall_s < start_wall_s]
        it_load = [sample for sample in it_load if sample.start_wall_s < start_wall_s]
        if not building:
            failures["forecast"] = "no history of grid, PCS and all nodes together yet"
            return None
        inflexible = self._forecaster.forecast(building, start_wall_s=start_wall_s, slots=planner.slots)
        usual = self._forecaster.forecast(it_load, start_wall_s=start_wall_s, slots=planner.slots) if it_load else None
        it_forecast = usual if slurm is None else self._it_forecast(snapshot, slurm, usual, start_wall_s)
        return None if it_forecast is None else LoadForecast(inflexible=inflexible, it=it_forecast)

    def _it_forecast(
        self, snapshot: Snapshot, slurm: SlurmState, usual: SeriesForecast | None, start_wall_s: float
    ) -> SeriesForecast:
        settings = self._settings
        draw = expected_it_draw(
            jobs=slurm.jobs,
            nodes=with_silent_nodes(snapshot.nodes, slurm.nodes),
            wall_s=snapshot.wall_s,
            config=settings.relocation,
        )
        forecast = forecast_it_load(
            draw,
            usual=usual,
            it_max_watts=settings.site.it_max_watts,
            start_wall_s=start_wall_s,
            slot_s=settings.planner.slot_s,
            slots=settings.planner.slots,
            config=settings.forecast,
        )
        drawn_watts = self._it_watts(dict(snapshot.nodes))
        wanted_now_watts = forecast.quantile(0.5)[0]
        self._held_back_watts = 0.0 if drawn_watts is None else max(0.0, wanted_now_watts - drawn_watts)
        return forecast

    def _plan(self, snapshot: Snapshot, forecast: LoadForecast | None, slurm: SlurmState | None) -> DispatchPlan | None:
        """Without a forecast the last plan stays in force."""
        if forecast is None:
            return self._view.plan
        settings = self._settings
        ess = snapshot.ess
        plan = plan_dispatch(
            forecast,
            tariff=settings.tariff,
            battery=settings.battery,
            site=settings.site,
            config=settings.planner,
            now_wall_s=snapshot.wall_s,
            stored_joules=None if ess is None else ess.stored_fraction * ess.capacity_joules,
            incumbent_watts=self._billing.peak_watts(snapshot.wall_s),
            typical_runtime_s=None if slurm is None else typical_runtime_s(slurm.jobs),
            it_firm_watts=None
            if slurm is None
            else firm_it_watts(
                jobs=slurm.jobs,
                nodes=with_silent_nodes(snapshot.nodes, slurm.nodes),
                start_wall_s=forecast.it.start_wall_s,
                slot_s=forecast.it.slot_s,
                slots=forecast.slots,
                wall_s=snapshot.wall_s,
                config=settings.relocation,
            ),
        )
        self._battery_loop.follow(plan)
        return plan

    def _relocate(self, snapshot: Snapshot, plan: DispatchPlan | None, slurm: SlurmState | None) -> RelocationPlan:
        """Without Slurm's answer nothing is decided: the caps that hold go on holding. Without a plan the marks
        in the jobs tell which ones those are."""
        if slurm is None:
            return RelocationPlan(job_caps=tuple((self._job_caps or {}).items()))
        return plan_relocation(
            jobs=slurm.jobs,
            slots=() if plan is None else plan.slots,
            nodes=snapshot.nodes,
            reservations=slurm.reservations,
            wall_s=snapshot.wall_s,
            config=self._settings.relocation,
        )

    def _act(self, snapshot: Snapshot, relocation: RelocationPlan, slurm: SlurmState | None) -> list[Event]:
        """A GPU that a lease does not name is free, so no lease is given before we know which caps hold."""
        if not self._manage:
            self._registry.grant({})
            return []
        if slurm is None and self._job_caps is None:
            return []
        events = apply_relocation(self._slurm, relocation, wall_s=snapshot.wall_s)
        self._job_caps = dict(relocation.job_caps)
        self._registry.grant(self._job_caps)
        return events

    def _record(
        self,
        snapshot: Snapshot,
        plan: DispatchPlan | None,
        relocation: RelocationPlan,
        slurm: SlurmState | None,
        events: list[Event],
    ) -> None:
        for event in events:
            log.info(
                "%s %s: %s%s",
                event.verb,
                event.subject,
                event.reason,
                f" FAILED: {event.failure}" if event.failure else "",
            )
        self._events.extend(events)
        self._store.write([*decision_points(events), *plan_points(plan, wall_s=snapshot.wall_s)])
        _log_troubles(self._view.snapshot, snapshot)
        self._view = ControllerView(
            mode=self._settings.controller.mode,
            ticks=self._view.ticks + 1,
            ticked_at_s=self._clock.now_s(),
            snapshot=snapshot,
            plan=plan,
            relocation=relocation,
            jobs=self._view.jobs if slurm is None else slurm.jobs,
            events=tuple(self._events),
        )

    # -- readings ----------------------------------------------------------------------------------

    @property
    def _manage(self) -> bool:
        return self._settings.controller.mode == "manage"

    @property
    def _max_age_s(self) -> float:
        return self._settings.controller.max_reading_age_s

    def _fresh_nodes(self) -> dict[str, NodeReading]:
        now_s = self._clock.now_s()
        readings = self._registry.readings()
        return {name: node for name, node in readings.items() if fresh(node, now_s=now_s, max_age_s=self._max_age_s)}

    def _it_watts(self, nodes: dict[str, NodeReading]) -> float | None:
        """Draw of all nodes that Slurm counts as up; None as soon as one of them is silent."""
        if not nodes or self._expected_nodes - nodes.keys():
            return None
        return it_draw_watts(nodes.values())

    # -- what the web server shows -------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        reporting = self._fresh_nodes()
        return views.status_json(
            self._view,
            self._battery_loop.view(),
            {**self._registry.readings(), **reporting},
            it_watts=self._it_watts(reporting),
            reporting=reporting.keys(),
            now_s=self._clock.now_s(),
        )

    def plan(self) -> dict[str, Any]:
        return views.plan_json(self._view, self._battery_loop.view())

    def jobs(self) -> list[dict[str, Any]]:
        return views.jobs_json(self._view)

    def ess(self) -> dict[str, Any]:
        return views.ess_json(self._view, self._battery_loop.view(), now_s=self._clock.now_s())

    def events(self) -> list[dict[str, Any]]:
        return views.events_json(self._view)

    def healthy(self) -> bool:
        """A tick happened, and not too long ago."""
        ticked_at_s = self._view.ticked_at_s
        limit_s = 3 * self._settings.controller.tick_period_s + self._max_age_s
        return ticked_at_s is not None and self._clock.now_s() - ticked_at_s < limit_s

    def exchange(self, sealed: bytes) -> bytes:
        return self._registry.exchange(sealed)


def _log_troubles(before: Snapshot | None, now: Snapshot) -> None:
    """One line when a trouble begins and one when it ends."""
    old = {} if before is None else before.failures
    for device in now.failures.keys() - old.keys():
        log.warning("%s: %s", device, now.failures[device])
    for device in old.keys() - now.failures.keys():
        log.warning("%s: good again", device)
