"""The controller's tick: it goes on whatever is missing, says what it does not know, and undoes only its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slurm_power.adapters.meter_sum import MeterGroup
from slurm_power.daemons.admin_desk import AdminDesk
from slurm_power.daemons.agent_registry import AgentRegistry
from slurm_power.daemons.battery_loop import BatteryLoop
from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller import Controller
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.parts_watch import PartsWatch
from slurm_power.daemons.pool_budgets import PoolBudgets
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.daemons.site_planner import Forecasters, Settings
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.grid_event import GridEvent
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.gpu.wire import AgentReport, GpuReport, NodeLease
from slurm_power.llm.pool_wire import PoolReport, budgets_from_json, report_to_json
from slurm_power.llm.power_budget import PoolDraw
from slurm_power.monitoring.conservation import ConservationRules
from slurm_power.relocation.job_mark import JobMark, parse_mark, with_mark
from slurm_power.relocation.jobs import Job, JobState, LicenseReservation, PowerClass, PowerRequest
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_credentials import FakeCredentials
from slurm_power.testing.fake_ess import FakeEss
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.testing.fake_meter import FakeMeter
from slurm_power.testing.memory_store import MemoryStore
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_slurm import SimulatedSlurmClient

NODES = ("n1", "n2")
PUE, BUILDING_WATTS = 1.2, 4000.0
IT_MAX_WATTS = 6600
CALM_WATTS, TIGHT_WATTS = 50_000.0, 10_000.0
"""Promised targets: one that never binds, and one that two busy nodes would break."""


class CountingSlurm(SimulatedSlurmClient):
    """Counts the changes, and refuses those of the jobs in `refused`."""

    def __init__(self, clock: FakeClock) -> None:
        licenses = {"watts": IT_MAX_WATTS, "firm_watts": IT_MAX_WATTS}
        super().__init__(clock, node_count=len(NODES), gpus_per_node=4, licenses=licenses)
        self.refused: set[int] = set()
        self.changes: list[str] = []

    def create_reservation(self, reservation: LicenseReservation) -> None:
        self.changes.append(f"create {reservation.name}")
        super().create_reservation(reservation)

    def update_reservation(self, reservation: LicenseReservation) -> None:
        self.changes.append(f"update {reservation.name}")
        super().update_reservation(reservation)

    def delete_reservation(self, name: str) -> None:
        self.changes.append(f"delete {name}")
        super().delete_reservation(name)

    def update_job(self, job_id: int, **change: Any) -> None:
        self.changes.append(f"job {job_id}")
        if job_id in self.refused:
            raise DeviceRefused("Access/permission denied")
        super().update_job(job_id, **change)

    def requeue(self, job_id: int) -> None:
        self.changes.append(f"requeue {job_id}")
        super().requeue(job_id)

    def job(self, job_id: int) -> Job:
        return next(job for job in self.jobs() if job.job_id == job_id)


class Site:
    """Two nodes of four GPUs, a building of 4 kW, a small battery. `controller` can be started anew."""

    def __init__(self, *, mode: str = "manage", target_watts: float = CALM_WATTS, history: bool = True) -> None:
        self.clock = FakeClock()
        self.slurm = CountingSlurm(self.clock)
        self.meter, self.journal, self.store = FakeMeter(clock=self.clock), FakeJournal(), MemoryStore()
        self.wishes = FakeJournal()
        battery = BatteryConfig(rated_joules=3.6e5, max_charge_watts=500.0, max_discharge_watts=500.0)
        self.ess = FakeEss(clock=self.clock, battery=battery)
        self.settings = _settings(mode, target_watts)
        self.has_history = history
        self.parts_watch: PartsWatch | None = None
        self.grid_signal = FakeGridSignal()
        self.start()

    def start(self) -> None:
        """A controller that remembers nothing but its journal and its store."""
        self.registry = AgentRegistry(
            clock=self.clock, credentials=FakeCredentials(self.clock), allowed_uids=(0,), lease_s=150.0
        )
        self.munge = FakeCredentials(self.clock)
        self.pools = PoolBudgets(
            clock=self.clock, credentials=self.munge, allowed_uids=(0,), admin_uids=(0,), max_age_s=150.0
        )
        settings = self.settings
        self.desk = AdminDesk(journal=self.wishes, clock=self.clock, grid_limit_watts=settings.site.grid_limit_watts)
        billing = BillingState(journal=self.journal, rates=settings.rates, max_gap_s=15.0, wall_s=self.clock.wall_s())
        naive = NaiveForecaster(settings.forecast, slot_s=settings.planner.slot_s)
        self.controller = Controller(
            settings=settings,
            clock=self.clock,
            slurm=self.slurm,
            store=self.store,
            registry=self.registry,
            battery_loop=BatteryLoop(
                clock=self.clock,
                meter=self.meter,
                ess=self.ess,
                billing=billing,
                site=settings.site,
                battery=settings.battery,
                revert_s=30.0,
                manage=settings.controller.mode == "manage",
            ),
            billing=billing,
            history=self._past(),
            forecasters=Forecasters(building=naive, it=naive),
            parts_watch=self.parts_watch,
            grid_signal=self.grid_signal,
            desk=self.desk,
            pools=self.pools,
        )

    def report_pool(self, *, draw_watts: float, least_watts: float) -> float | None:
        """The budget that a pool gets."""
        report = PoolReport("llm", (PoolDraw("llm/LL", draw_watts, least_watts),))
        answer = self.pools.exchange(self.munge.seal(report_to_json(report)))
        budgets = budgets_from_json(self.munge.open(answer).payload)
        return budgets["llm/LL"].watts if budgets else None

    def submit(
        self,
        power_class: PowerClass = PowerClass.FLEXIBLE,
        *,
        mark: JobMark | None = None,
        watts: int = 3300,
        **options: Any,
    ) -> int:
        """A job that takes one whole node."""
        comment = with_mark("", mark or JobMark(PowerRequest(power_class=power_class, max_slowdown_fraction=0.3)))
        name = "firm_watts" if power_class is PowerClass.FIRM else "watts"
        return self.slurm.submit(gpus=4, licenses={name: watts}, admin_comment=comment, **options)

    def report(self, *nodes: str, gpu_watts: float = 700.0) -> dict[str, NodeLease | None]:
        """The agents of `nodes` report what their jobs draw under our caps; the meter shows it. The leases they get."""
        running = {node: job for job in self.slurm.jobs() for node in job.node_names if job.state is JobState.RUNNING}
        reports = [_report(node, running.get(node), gpu_watts) for node in nodes]
        it_watts = sum(500.0 + sum(gpu.draw_watts or 0.0 for gpu in report.gpus) for report in reports)
        self.meter.import_watts = BUILDING_WATTS + PUE * it_watts
        return {report.node_name: self.registry.accept(report) for report in reports}

    def tick(self, *nodes: str, gpu_watts: float = 700.0) -> None:
        """One round of agents, fast loop and tick."""
        self.report(*nodes, gpu_watts=gpu_watts)
        self.controller.fast_tick()
        self.controller.tick()

    @property
    def failures(self) -> Mapping[str, str]:
        failures: Mapping[str, str] = self.controller.status()["failures"]
        return failures

    def decided(self) -> list[tuple[str, str]]:
        return [(event["verb"], event["subject"]) for event in self.controller.events()]

    def _past(self) -> SiteHistory:
        history = SiteHistory(keep_s=86_400.0, slot_s=900.0, max_gap_s=60.0)
        for second in range(0, 6 * 3600 if self.has_history else 0, 60):
            wall_s = self.clock.wall_s() - 6 * 3600 + second
            history.add(wall_s, inflexible_watts=BUILDING_WATTS, it_wanted_watts=3000.0)
        return history


def _report(node_name: str, job: Job | None, gpu_watts: float = 700.0) -> AgentReport:
    capped_watts = 700.0 if job is None else parse_mark(job.admin_comment).capped_watts or 700.0
    draw_watts = 70.0 if job is None else min(gpu_watts, capped_watts)
    job_id = None if job is None else job.job_id
    gpus = tuple(
        GpuReport(f"{node_name}-{i}", draw_watts, 1e6, 1900, 60.0, 0.9, 700.0, "found", 200.0, 700.0, job_id)
        for i in range(4)
    )
    return AgentReport(node_name, 500.0, 0.5, gpus, None)


def _settings(mode: str, target_watts: float) -> Settings:
    return Settings(
        controller=ControllerConfig(mode="observe" if mode == "observe" else "manage", state_path=Path("unused")),
        site=SiteLimits(grid_limit_watts=60_000.0, it_max_watts=float(IT_MAX_WATTS), pue=PUE),
        rates=Tariff(energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.1),), demand_price_per_kw=0.0),
        battery=BatteryLimits(capacity_joules=3.6e5, max_charge_watts=500.0, max_discharge_watts=500.0),
        planner=PlannerConfig(horizon_s=4 * 3600.0, target_watts=target_watts, target_floor_watts=target_watts),
        forecast=ForecastConfig(stated_band_fraction=0.01),
        relocation=RelocationConfig(
            license_total_watts=IT_MAX_WATTS,
            gpu_max_watts=700.0,
            gpu_idle_watts=70.0,
            min_gpu_cap_watts=200.0,
            node_base_watts=500.0,
            cap_release_margin_watts=100.0,
            reservation_horizon_s=3600.0,
        ),
    )


class FakeGridSignal:
    def __init__(self) -> None:
        self.asked: tuple[GridEvent, ...] = ()
        self.silent = False

    def events(self) -> tuple[GridEvent, ...]:
        if self.silent:
            raise Unavailable("grid signal: nobody answers")
        return self.asked

    def close(self) -> None:
        return


def tight_site(*, mode: str = "manage", jobs: int = 2) -> Site:
    """Both nodes are busy and together break the promise."""
    site = Site(mode=mode, target_watts=TIGHT_WATTS)
    for _ in range(jobs):
        site.submit()
    return site


def test_without_any_history_there_is_no_plan_and_the_status_says_so() -> None:
    site = Site(history=False)
    site.report(*NODES)
    site.controller.tick()
    assert site.controller.plan()["plan"] is None
    assert site.failures["forecast"] == "no history of grid, PCS and all nodes together yet"
    assert site.slurm.changes == []


def test_a_calm_site_is_planned_and_left_alone() -> None:
    site = Site()
    site.submit()
    site.tick(*NODES)
    assert site.failures == {}
    assert site.controller.status()["target_watts"] == CALM_WATTS
    assert site.slurm.changes == []


def test_what_the_utility_asks_is_promised_and_goes_on_while_it_is_silent() -> None:
    site = Site()
    jobs = [site.submit(), site.submit()]
    event = GridEvent(name="peak", start_wall_s=site.clock.wall_s() - 60.0, duration_s=7200.0, limit_watts=TIGHT_WATTS)
    site.grid_signal.asked = (event,)
    site.tick(*NODES)
    assert site.controller.status()["target_watts"] == TIGHT_WATTS
    assert all(parse_mark(site.slurm.job(job_id).admin_comment).capped_watts for job_id in jobs)
    site.grid_signal.silent = True
    site.tick(*NODES)
    assert site.failures["grid signal"] == "grid signal: nobody answers"
    assert site.controller.status()["target_watts"] == TIGHT_WATTS


def test_jobs_that_break_the_promise_are_capped_and_their_agents_get_leases() -> None:
    site = tight_site()
    site.tick(*NODES)
    capped = parse_mark(site.slurm.job(1).admin_comment).capped_watts
    assert capped is not None
    assert 200.0 <= capped < 700.0
    lease = site.report(*NODES)["n1"]
    assert lease is not None
    assert lease.cap_watts == {f"n1-{i}": capped for i in range(4)}
    assert lease.valid_s == 150.0


def test_a_firm_job_is_never_touched() -> None:
    site = Site(target_watts=TIGHT_WATTS)
    firm = [site.submit(PowerClass.FIRM) for _ in range(2)]
    before = [site.slurm.job(job_id) for job_id in firm]
    site.tick(*NODES)
    assert [site.slurm.job(job_id) for job_id in firm] == before
    lease = site.report(*NODES)["n1"]
    assert lease is not None
    assert lease.cap_watts == {}


def test_a_pool_of_firm_jobs_gives_what_it_can_until_the_event_is_over_also_when_it_obeys() -> None:
    """Where all load is firm nothing is shed, and still the promise is to be kept."""
    site = Site()
    for _ in range(2):
        site.submit(PowerClass.FIRM)
    ask = GridEvent(name="peak", start_wall_s=site.clock.wall_s() - 60.0, duration_s=7200.0, limit_watts=TIGHT_WATTS)
    site.grid_signal.asked = (ask,)
    assert site.report_pool(draw_watts=5600.0, least_watts=2000.0) is None
    site.tick(*NODES)
    budget_watts = site.report_pool(draw_watts=5600.0, least_watts=2000.0)
    assert budget_watts is not None
    assert 2000.0 < budget_watts < 5000.0
    for _ in range(2):
        site.report_pool(draw_watts=budget_watts, least_watts=2000.0)
        site.tick(*NODES, gpu_watts=budget_watts / 8)
    assert site.report_pool(draw_watts=budget_watts, least_watts=2000.0) == pytest.approx(budget_watts, rel=0.02)
    site.grid_signal.asked = ()
    site.tick(*NODES, gpu_watts=budget_watts / 8)
    assert site.report_pool(draw_watts=budget_watts, least_watts=2000.0) is None


def test_every_decision_is_an_event_with_its_reason_and_a_point_in_the_store() -> None:
    site = tight_site(jobs=3)
    site.tick(*NODES)
    events = site.controller.events()
    assert {"cap", "create"} <= {event["verb"] for event in events}
    assert all(event["reason"] and event["failure"] is None for event in events)
    points = site.store.read("decision", since_wall_s=0.0)
    assert [point.fields["reason"] for point in points] == [event["reason"] for event in events]
    why = {job["job_id"]: job["why"] for job in site.controller.jobs()}
    assert "the envelope is" in why[1]


def test_a_refused_action_is_recorded_with_its_failure_and_stops_no_other() -> None:
    site = tight_site()
    site.slurm.refused = {1}
    site.tick(*NODES)
    failures = {event["subject"]: event["failure"] for event in site.controller.events() if event["verb"] == "cap"}
    assert failures == {"job 1": "Access/permission denied", "job 2": None}
    assert parse_mark(site.slurm.job(2).admin_comment).capped_watts is not None


def test_without_slurm_the_tick_goes_on_and_the_caps_hold() -> None:
    site = tight_site()
    site.tick(*NODES)
    before = site.report(*NODES)["n1"]
    reports = [_report(node, site.slurm.job(1 + index)) for index, node in enumerate(NODES)]
    site.slurm.set_answers(False)
    site.clock.advance(120.0)  # longer than one lease would hold without the second tick
    for report in reports:
        site.registry.accept(report)
    site.controller.fast_tick()
    site.controller.tick()
    assert "Unable to contact slurm controller" in site.failures["slurm"]
    assert site.controller.status()["ticks"] == 2
    site.clock.advance(60.0)
    after = site.registry.accept(reports[0])
    assert before is not None
    assert after is not None
    assert after.cap_watts == before.cap_watts != {}


def test_without_slurm_the_site_is_still_planned_from_its_history() -> None:
    site = Site()
    site.slurm.set_answers(False)
    for node in NODES:
        site.registry.accept(_report(node, None))
    site.meter.import_watts = 6000.0
    site.controller.fast_tick()
    site.controller.tick()
    assert list(site.failures) == ["slurm"]
    assert site.controller.status()["target_watts"] == CALM_WATTS


def test_a_restarted_controller_that_cannot_ask_slurm_gives_no_lease() -> None:
    """A lease without caps would free GPUs that were capped for a peak; the safe cap is for exactly this."""
    site = tight_site()
    site.tick(*NODES)
    report = _report("n1", site.slurm.job(1))
    site.start()
    site.slurm.set_answers(False)
    site.controller.tick()
    assert site.registry.accept(report) is None
    site.slurm.set_answers(True)
    site.tick(*NODES)
    lease = site.registry.accept(report)
    assert lease is not None
    assert lease.cap_watts != {}


def test_a_restarted_controller_without_history_keeps_the_caps_it_finds_in_the_marks() -> None:
    site = tight_site()
    site.tick(*NODES)
    before = site.report(*NODES)["n1"]
    site.has_history = False
    site.start()
    site.report(*NODES)
    site.controller.tick()
    after = site.report(*NODES)["n1"]
    assert before is not None
    assert after is not None
    assert after.cap_watts == before.cap_watts != {}


def test_a_silent_node_is_named_and_its_draw_is_unknown_not_zero() -> None:
    site = Site()
    site.submit()
    site.tick(*NODES)
    site.clock.advance(60.0)
    site.tick("n1")
    assert list(site.failures) == ["node n2"]
    known, unknown = site.store.read("site", since_wall_s=0.0)
    assert known.fields["it_watts"] == 500.0 + 4 * 700.0 + 500.0 + 4 * 70.0
    assert {"it_watts", "it_wanted_watts", "inflexible_watts"} & unknown.fields.keys() == set()
    assert "grid_import_watts" in unknown.fields


def test_a_silent_nodes_job_counts_with_its_licence() -> None:
    site = tight_site()
    site.tick("n1")
    assert "node n2 is unknown: its jobs count with their licences" in site.controller.status()["shortfalls"]
    assert parse_mark(site.slurm.job(1).admin_comment).capped_watts is not None


def test_the_draw_of_a_node_that_is_down_in_slurm_is_not_waited_for() -> None:
    site = Site()
    site.slurm.set_node_up("n2", False)
    site.tick("n1")
    site.clock.advance(5.0)
    site.report("n1")
    site.controller.fast_tick()
    assert "DOWN" in site.failures["node n2"]
    assert site.store.read("site", since_wall_s=0.0)[-1].fields["it_watts"] == 500.0 + 4 * 70.0


def test_a_silent_meter_is_named_and_the_tick_goes_on() -> None:
    site = Site()
    site.report(*NODES)
    site.meter.import_watts = None
    site.controller.fast_tick()
    site.controller.tick()
    assert list(site.failures) == ["meter"]
    assert site.controller.status()["grid"] is None
    assert site.controller.status()["target_watts"] == CALM_WATTS


def test_an_unknown_battery_is_planned_without_and_named() -> None:
    site = Site()
    site.ess.answers = False
    site.tick(*NODES)
    assert list(site.failures) == ["pcs"]
    assert "the battery's state is unknown: planned without it" in site.controller.status()["shortfalls"]


def test_an_observing_controller_plans_but_writes_to_nothing() -> None:
    site = tight_site(mode="observe", jobs=3)
    for _ in range(3):
        site.tick(*NODES)
        site.clock.advance(60.0)
    assert site.slurm.changes == []
    assert site.ess.commands == []
    assert site.controller.events() == []
    assert site.controller.plan()["relocation"]["jobs"], "it would have acted"
    lease = site.report(*NODES)["n1"]
    assert lease is not None
    assert lease.cap_watts == {}


def test_a_managing_controller_discharges_into_a_peak_that_nobody_may_cap() -> None:
    site = Site(target_watts=TIGHT_WATTS)
    for _ in NODES:
        site.submit(PowerClass.FIRM)
    site.tick(*NODES)
    site.clock.advance(5.0)
    site.report(*NODES)
    site.controller.fast_tick()
    assert site.ess.commands[-1].discharge_watts > 0


def test_after_a_restart_only_what_carries_our_mark_is_undone() -> None:
    site = Site()
    now_s = site.clock.wall_s()
    ours = LicenseReservation("slurm_power_1", now_s, now_s + 7200, {"watts": 1000})
    theirs = LicenseReservation("maintenance", now_s, now_s + 7200, {"watts": 100})
    for reservation in (ours, theirs):
        site.slurm.create_reservation(reservation)
    request = PowerRequest(power_class=PowerClass.FLEXIBLE)
    mark = JobMark(request, capped_watts=300.0, licenses_before=3300, drawn_watts=700.0)
    capped = site.submit(mark=mark, watts=1700)
    later_s = now_s + 3600
    deferred = site.submit(mark=JobMark(request, deferred_until_wall_s=later_s), begin_wall_s=later_s)
    their_own = site.submit(begin_wall_s=later_s)
    site.start()

    for _ in range(12):  # caps rise calmly
        site.tick(*NODES, gpu_watts=280.0)
        site.clock.advance(60.0)

    assert site.slurm.license_reservations() == [theirs]
    assert site.slurm.job(capped).licenses == {"watts": 3300}
    assert parse_mark(site.slurm.job(capped).admin_comment) == JobMark(request)
    assert parse_mark(site.slurm.job(deferred).admin_comment) == JobMark(request)
    assert site.slurm.job(deferred).begin_wall_s is None
    assert site.slurm.job(their_own).begin_wall_s == later_s
    assert {subject for _, subject in site.decided()} == {
        "reservation slurm_power_1",
        f"job {capped}",
        f"job {deferred}",
    }


def test_the_peak_over_all_caps_are_taken_back() -> None:
    site = tight_site()
    site.tick(*NODES)
    site.slurm.cancel(2)
    for _ in range(12):
        site.clock.advance(60.0)
        site.tick(*NODES, gpu_watts=500.0)
    assert parse_mark(site.slurm.job(1).admin_comment).capped_watts is None
    assert site.slurm.job(1).licenses == {"watts": 3300}


def test_a_store_that_is_away_stops_nothing() -> None:
    site = tight_site()
    site.store.break_off()
    site.tick(*NODES)
    assert ("cap", "job 1") in site.decided()
    site.store.mend()
    assert site.store.read("decision", since_wall_s=0.0)


def test_health_needs_a_tick_that_is_not_too_old() -> None:
    site = Site()
    assert not site.controller.healthy()
    site.tick(*NODES)
    assert site.controller.healthy()
    site.clock.advance(3 * 60.0 + 15.0)
    assert not site.controller.healthy()


def test_what_was_measured_survives_the_end_of_the_controller() -> None:
    site = Site()
    site.tick(*NODES)
    site.controller.close()
    assert {record["kind"] for record in site.journal.records} >= {"interval"}


def test_what_our_caps_keep_away_is_recorded_as_wanted() -> None:
    """Tomorrow's forecast must not learn from what we did to today."""
    site = tight_site()
    for _ in range(2):
        site.tick(*NODES)
        site.clock.advance(5.0)
    site.report(*NODES)
    site.controller.fast_tick()
    point = site.store.read("site", since_wall_s=0.0)[-1]
    capped_watts = parse_mark(site.slurm.job(1).admin_comment).capped_watts
    assert capped_watts is not None
    assert point.fields["it_watts"] == 2 * (500.0 + 4 * capped_watts)
    assert point.fields["it_wanted_watts"] == pytest.approx(IT_MAX_WATTS)


def test_meters_below_the_feeder_are_held_against_what_the_site_draws_behind_its_battery() -> None:
    site = Site()
    part = FakeMeter(clock=site.clock)
    rules = ConservationRules(window_s=60.0)
    site.parts_watch = PartsWatch(MeterGroup({"pdu-a1": part}), clock=site.clock, rules=rules, max_gap_s=15.0)
    site.start()
    for _ in range(20):
        site.clock.advance(5.0)
        site.report("n1", "n2")
        site.controller.fast_tick()
        grid, ess = site.meter.read(), site.ess.read()
        part.import_watts = grid.import_watts + ess.discharge_watts - ess.charge_watts
        site.controller.parts_tick()
    status = site.controller.status()
    assert status["conservation"]["ratio"] == pytest.approx(1.0, abs=0.01)
    assert status["parts"]["pdu-a1"]["age_s"] == 0.0
    assert status["notes"][0].startswith("conservation: parts sum to 100.0 % of the feeder")
    part.import_watts = None
    site.controller.parts_tick()
    assert site.failures["part pdu-a1"] == "fake meter: does not answer"


def test_a_site_without_parts_has_no_verdict() -> None:
    site = Site()
    site.controller.parts_tick()
    status = site.controller.status()
    assert (status["parts"], status["conservation"], status["notes"]) == ({}, None, [])
