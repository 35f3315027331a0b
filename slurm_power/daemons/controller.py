"""slurm-powerd: the slow tick. Observe, predict, plan, relocate, act, record; nothing here decides."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import replace
from typing import Any

from slurm_power.daemons import controller_view as views
from slurm_power.daemons.admin_desk import AdminDesk
from slurm_power.daemons.agent_registry import AgentRegistry
from slurm_power.daemons.battery_loop import BatteryLoop
from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller_metrics import DecisionCounts, controller_metrics
from slurm_power.daemons.controller_record import decision_points, plan_points, site_point
from slurm_power.daemons.controller_view import ControllerView, Event, Picture
from slurm_power.daemons.job_records import JobRecorder
from slurm_power.daemons.job_watts_book import JobWattsBook
from slurm_power.daemons.learning_loop import LearningLoop
from slurm_power.daemons.live_views import LiveViews, new_trail, trail_values
from slurm_power.daemons.overrides import Overrides
from slurm_power.daemons.parts_watch import NO_PARTS, PartsWatch
from slurm_power.daemons.pool_budgets import PoolBudgets
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.daemons.site_planner import Forecasters, Settings, SitePlanner, SlurmState
from slurm_power.daemons.slurm_actions import apply_relocation
from slurm_power.errors import Unavailable
from slurm_power.ess.grid_event import GridEvent
from slurm_power.ess.plan import DispatchPlan
from slurm_power.forecasting.forecast import LoadForecast
from slurm_power.monitoring.openmetrics import render
from slurm_power.monitoring.readings import NodeReading, Snapshot, fresh
from slurm_power.monitoring.site_balance import inflexible_watts, it_draw_watts, site_load_watts
from slurm_power.monitoring.trail import Trail
from slurm_power.ports.clock import Clock
from slurm_power.ports.grid_signal import GridSignal
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.relocation.job_mark import marked_caps
from slurm_power.relocation.job_power import job_powers
from slurm_power.relocation.plan import RelocationPlan
from slurm_power.relocation.planner import plan_relocation
from slurm_power.relocation.queue_state import queue_state

log = logging.getLogger(__name__)

EVENTS_KEPT = 2000
_NO_EVENTS: tuple[GridEvent, ...] = ()


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
        forecasters: Forecasters,
        learning: LearningLoop | None = None,
        job_watts: JobWattsBook | None = None,
        parts_watch: PartsWatch | None = None,
        grid_signal: GridSignal | None = None,
        pools: PoolBudgets | None = None,
        desk: AdminDesk | None = None,
        trail: Trail | None = None,
    ) -> None:
        self._settings, self.desk = settings, desk
        self._clock, self._slurm, self._store = clock, slurm, store
        self._registry, self._battery_loop = registry, battery_loop
        self._billing, self._history = billing, history
        self._planner = SitePlanner(settings, history=history, forecasters=forecasters, billing=billing)
        self._parts_watch, self._learning, self._job_watts = parts_watch, learning, job_watts
        self._grid_signal, self._grid_events = grid_signal, _NO_EVENTS
        self.pools = pools
        self._job_records = JobRecorder()
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._job_caps: dict[int, float] | None = None  # None: just started, nobody has told us which caps hold
        self._expected_nodes: frozenset[str] = frozenset()
        self._held_back_watts = 0.0  # IT draw that our own actions keep away: tomorrow must not forget it
        self._decisions = DecisionCounts()
        self._view_lock = threading.Lock()
        self._view = ControllerView(mode=settings.controller.mode)
        self._trail = trail or new_trail(settings.controller, horizon_s=settings.planner.horizon_s)
        self.live = LiveViews(
            self.picture, trail=self._trail, billing=billing, rates=settings.rates, pue=settings.site.pue
        )
        if desk is not None:
            desk.on_event = self._hear_admin
        self._battery_loop.let(manage=self._manage)

    # -- the two loops ---------------------------------------------------------------------------

    def tick(self) -> None:
        failures: dict[str, str] = {}
        slurm = self._ask_slurm(failures)
        snapshot = self._observe(failures)
        slurm = None if slurm is None else slurm.seen_with(snapshot.nodes)
        self._learn_watts(slurm)
        forecast = self._planner.predict(snapshot, slurm, failures, held_back_watts=self._pools_hold_back_watts())
        self._hold_back(snapshot, None if slurm is None else forecast)
        self._ask_grid(failures)
        plan = self._plan(snapshot, forecast, slurm)
        relocation = self._relocate(snapshot, plan, slurm)
        events = self._act(snapshot, relocation, slurm)
        self._limit_pools(snapshot, plan)
        self._record(snapshot, plan, relocation, slurm, events, forecast)

    def fast_tick(self) -> None:
        self._battery_loop.step()
        fast, wall_s = self._battery_loop.view(), self._clock.wall_s()
        it_watts = self._it_watts(self._fresh_nodes())
        grid = fresh(fast.grid, now_s=self._clock.now_s(), max_age_s=self._max_age_s)
        ess = fresh(fast.ess, now_s=self._clock.now_s(), max_age_s=self._max_age_s)
        building_watts = inflexible_watts(grid, ess=ess, it_watts=it_watts, pue=self._settings.site.pue)
        wanted_watts = None if it_watts is None else it_watts + self._held_back_watts
        self._history.add(wall_s, inflexible_watts=building_watts, it_wanted_watts=wanted_watts)
        point = site_point(
            fast,
            self._view.plan,
            it_watts=it_watts,
            it_wanted_watts=wanted_watts,
            inflexible_watts=building_watts,
            wall_s=wall_s,
        )
        points = self._history.closed_slots(wall_s)
        if point is not None:
            points.append(point)
            self._trail.add(wall_s, trail_values(point))
        if points:
            self._store.write(points)

    @property
    def learns(self) -> bool:
        return self._learning is not None

    def learn_tick(self) -> None:
        """Apart from the slow tick: learning may take minutes."""
        if self._learning is not None:
            self._learning.step()

    @property
    def watches_parts(self) -> bool:
        return self._parts_watch is not None

    def parts_tick(self) -> None:
        """Apart from the fast tick: a PDU that is slow to answer must not delay the battery."""
        if self._parts_watch is not None:
            self._parts_watch.step(self._site_load_watts())

    def close(self) -> None:
        """What we asked of Slurm, agents and PCS ends by itself; what we know is saved."""
        self._billing.save()
        self._store.close()
        if self._grid_signal is not None:
            self._grid_signal.close()

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
        wall_s = self._clock.wall_s()
        self._history.add_queue(wall_s, queue_state(jobs, wall_s=wall_s))
        return SlurmState(jobs, reservations, nodes, {})

    def _ask_grid(self, failures: dict[str, str]) -> None:
        """A signal that cannot be read leaves what was asked before."""
        if self._grid_signal is None:
            return
        try:
            self._grid_events = tuple(self._grid_signal.events())
        except Unavailable as failure:
            failures["grid signal"] = str(failure)

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

    def _learn_watts(self, slurm: SlurmState | None) -> None:
        if slurm is not None and self._job_watts is not None:
            self._job_watts.observe(job_powers(slurm.jobs, nodes=slurm.readings, config=self._settings.relocation))

    def _hold_back(self, snapshot: Snapshot, forecast: LoadForecast | None) -> None:
        """Remember what jobs want now beyond what they draw; without Slurm what was last known stays."""
        if forecast is None:
            return
        drawn_watts = self._it_watts(dict(snapshot.nodes))
        wanted_watts = forecast.it.quantile(0.5)[0]
        self._held_back_watts = 0.0 if drawn_watts is None else max(0.0, wanted_watts - drawn_watts)

    def _plan(self, snapshot: Snapshot, forecast: LoadForecast | None, slurm: SlurmState | None) -> DispatchPlan | None:
        """Without a forecast the last plan stays in force."""
        if forecast is None:
            return self._view.plan
        plan = self._planner.plan(snapshot, forecast, slurm, (*self._grid_events, *self._overrides.grid_events))
        self._battery_loop.follow(plan)
        return plan

    def _relocate(self, snapshot: Snapshot, plan: DispatchPlan | None, slurm: SlurmState | None) -> RelocationPlan:
        """Without Slurm's answer, or on hold, nothing is decided: the caps that hold go on holding. Without a plan the
        marks in the jobs tell which ones those are."""
        if slurm is None:
            return RelocationPlan(job_caps=tuple((self._job_caps or {}).items()))
        if self._overrides.hold is not None:
            held = marked_caps(slurm.jobs) if self._job_caps is None else self._job_caps
            return RelocationPlan(job_caps=tuple(held.items()))
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

    def _limit_pools(self, snapshot: Snapshot, plan: DispatchPlan | None) -> None:
        """Serving jobs are firm: no cap or deferral touches them, and the plan sheds nothing of theirs. But their pools
        give what they can, also where nothing else is left to shed."""
        if self.pools is None:
            return
        slot = None if plan is None or not self._manage else plan.slot_at(snapshot.wall_s)
        self.pools.follow(
            shed_watts=0.0 if slot is None else slot.it_shed_watts + slot.it_uncovered_watts,
            envelope_watts=0.0 if slot is None else slot.envelope_watts,
            it_watts=self._it_watts(dict(snapshot.nodes)),
            for_s=self._settings.controller.lease_s,
        )

    def _record(
        self,
        snapshot: Snapshot,
        plan: DispatchPlan | None,
        relocation: RelocationPlan,
        slurm: SlurmState | None,
        events: list[Event],
        forecast: LoadForecast | None,
    ) -> None:
        _log_events(events)
        jobs = [] if slurm is None else self._job_records.points(slurm.jobs, wall_s=snapshot.wall_s)
        self._store.write([*decision_points(events), *plan_points(plan, wall_s=snapshot.wall_s), *jobs])
        _log_troubles(self._view.snapshot, snapshot)
        with self._view_lock:
            self._keep_events(events)
            self._view = ControllerView(
                mode="manage" if self._manage else "observe",
                ticks=self._view.ticks + 1,
                ticked_at_s=self._clock.now_s(),
                snapshot=snapshot,
                plan=plan,
                relocation=relocation,
                jobs=self._view.jobs if slurm is None else slurm.jobs,
                events=tuple(self._events),
                forecast=self._view.forecast if forecast is None else forecast,
            )

    def _keep_events(self, events: list[Event]) -> None:
        self._events.extend(events)
        self._decisions = self._decisions.with_events(events)

    def _pools_hold_back_watts(self) -> float:
        return 0.0 if self.pools is None else self.pools.held_back_watts()

    # -- what admins ask for ---------------------------------------------------------------------------

    @property
    def _overrides(self) -> Overrides:
        return Overrides() if self.desk is None else self.desk.current()

    def _hear_admin(self, event: Event) -> None:
        """In the web server's thread: seen and, for the battery, obeyed at once; the rest from the next tick on."""
        self._battery_loop.let(manage=self._manage)
        _log_events([event])
        self._store.write(decision_points([event]))
        with self._view_lock:
            self._keep_events([event])
            mode = "manage" if self._manage else "observe"
            self._view = replace(self._view, events=tuple(self._events), mode=mode)

    # -- readings ----------------------------------------------------------------------------------

    @property
    def _manage(self) -> bool:
        return self._settings.controller.mode == "manage" and self._overrides.observe is None

    @property
    def _max_age_s(self) -> float:
        return self._settings.controller.max_reading_age_s

    def _site_load_watts(self) -> float | None:
        fast, now_s = self._battery_loop.view(), self._clock.now_s()
        grid = fresh(fast.grid, now_s=now_s, max_age_s=self._max_age_s)
        return site_load_watts(grid, ess=fresh(fast.ess, now_s=now_s, max_age_s=self._max_age_s))

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

    def picture(self) -> Picture:
        reporting = self._fresh_nodes()
        return Picture(
            view=self._view,
            fast=self._battery_loop.view(),
            nodes={**self._registry.readings(), **reporting},
            reporting=frozenset(reporting),
            it_watts=self._it_watts(reporting),
            now_s=self._clock.now_s(),
            wall_s=self._clock.wall_s(),
            parts=NO_PARTS if self._parts_watch is None else self._parts_watch.view(),
            overrides=self._overrides,
        )

    def status(self) -> dict[str, Any]:
        return views.status_json(self.picture())

    def metrics(self) -> str:
        seen = self.picture()
        joules = self._billing.energy.of_period(self._settings.rates.period_of(seen.wall_s))
        return render(controller_metrics(seen, healthy=self.healthy(), decisions=self._decisions, energy_joules=joules))

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


def _log_events(events: list[Event]) -> None:
    for event in events:
        failed = f" FAILED: {event.failure}" if event.failure else ""
        log.info("%s %s: %s%s", event.verb, event.subject, event.reason, failed)


def _log_troubles(before: Snapshot | None, now: Snapshot) -> None:
    """One line when a trouble begins and one when it ends."""
    old = {} if before is None else before.failures
    for device in now.failures.keys() - old.keys():
        log.warning("%s: %s", device, now.failures[device])
    for device in old.keys() - now.failures.keys():
        log.warning("%s: good again", device)
