"""An emulated site of 1,000 nodes with 8 GPUs each and 10,000 jobs, and a controller that plans for it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from slurm_power.daemons.agent_registry import AgentRegistry
from slurm_power.daemons.battery_loop import BatteryLoop
from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller import Controller
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.daemons.site_planner import Forecasters, Settings
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.gpu.wire import AgentReport, GpuReport
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.relocation.job_mark import JobMark, parse_mark, with_mark
from slurm_power.relocation.jobs import Job, JobState, PowerClass, PowerRequest
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.fake_credentials import FakeCredentials
from slurm_power.testing.fake_ess import FakeEss
from slurm_power.testing.fake_journal import FakeJournal
from slurm_power.testing.fake_meter import FakeMeter
from slurm_power.testing.memory_store import MemoryStore
from slurm_power.testing.simulated_site.battery import BatteryConfig
from slurm_power.testing.simulated_slurm import SimulatedSlurmClient

NODES, GPUS_PER_NODE, JOBS = 1000, 8, 10_000
BASE_WATTS, GPU_MAX_WATTS, GPU_IDLE_WATTS = 500, 700, 70.0
IT_MAX_WATTS = NODES * (BASE_WATTS + GPUS_PER_NODE * GPU_MAX_WATTS)
BUILDING_WATTS, PUE = 1.5e6, 1.25
BATTERY_JOULES, BATTERY_WATTS = 3.6e9 * 4, 2e6
HISTORY_S, HISTORY_STEP_S = 86_400.0, 5.0
FIRST_DONE, FIRST_DONE_S = 1000, 1800.0
START_WALL_S = 1_700_049_600.0  # 12:00 UTC

CLASSES = (PowerClass.FIRM, *3 * (PowerClass.FLEXIBLE,), PowerClass.PREEMPTIBLE)


class LargeSite:
    def __init__(self, *, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self.clock = FakeClock(wall_s=START_WALL_S - FIRST_DONE_S)
        self.slurm = SimulatedSlurmClient(
            self.clock,
            node_count=NODES,
            gpus_per_node=GPUS_PER_NODE,
            licenses={"watts": IT_MAX_WATTS, "firm_watts": IT_MAX_WATTS},
        )
        for number in range(JOBS):
            self._submit(number)
        self.clock.advance(FIRST_DONE_S)
        self.meter = FakeMeter(clock=self.clock)
        self.registry = AgentRegistry(
            clock=self.clock, credentials=FakeCredentials(self.clock), allowed_uids=(0,), lease_s=180.0
        )

    def controller(self, slurm: SlurmClient) -> Controller:
        settings = _settings()
        billing = BillingState(journal=FakeJournal(), rates=settings.rates, max_gap_s=60.0, wall_s=self.clock.wall_s())
        naive = NaiveForecaster(settings.forecast, slot_s=settings.planner.slot_s)
        return Controller(
            settings=settings,
            clock=self.clock,
            slurm=slurm,
            store=MemoryStore(),
            registry=self.registry,
            battery_loop=self._battery_loop(settings, billing),
            billing=billing,
            history=self._history(settings),
            forecasters=Forecasters(building=naive, it=naive),
        )

    def report_nodes(self, jobs: Sequence[Job]) -> None:
        """Every agent reports what its GPUs draw under the caps in the jobs' marks; the meter follows."""
        on_node: dict[str, list[tuple[int, float]]] = {}
        for job in jobs:
            if job.state is JobState.RUNNING:
                cap_watts = parse_mark(job.admin_comment).capped_watts or GPU_MAX_WATTS
                for name in job.node_names:
                    gpus = job.gpus // len(job.node_names)
                    on_node.setdefault(name, []).extend((job.job_id, min(cap_watts, 640.0)) for _ in range(gpus))
        total_watts = 0.0
        for name in (node.node_name for node in self.slurm.nodes()):
            report = _report(name, on_node.get(name, []))
            total_watts += BASE_WATTS + sum(gpu.draw_watts or 0.0 for gpu in report.gpus)
            self.registry.accept(report)
        self.meter.import_watts = BUILDING_WATTS + PUE * total_watts

    def _submit(self, number: int) -> None:
        """The first thousand have ended by the first tick; some of the others carry marks of an earlier tick."""
        dice = self._random
        power_class = dice.choice(CLASSES)
        gpus = dice.choice((1, 1, 2, 2, 4, 8))
        watts = gpus * GPU_MAX_WATTS + round(BASE_WATTS * gpus / GPUS_PER_NODE)
        limit_s = dice.choice((1, 2, 4, 8, 24)) * 3600.0
        request = PowerRequest(
            power_class=power_class,
            max_slowdown_fraction=dice.choice((None, 0.1, 0.3)),
            max_delay_s=dice.choice((None, 3600.0, 8 * 3600.0)),
        )
        mark = JobMark(request)
        if power_class is not PowerClass.FIRM and number % 10 == 0:
            mark = JobMark(request, capped_watts=500.0, licenses_before=watts, drawn_watts=640.0)
            watts -= 200 * gpus
        self.slurm.submit(
            gpus=gpus,
            time_limit_s=limit_s,
            run_s=FIRST_DONE_S if number < FIRST_DONE else limit_s,
            licenses={"firm_watts" if power_class is PowerClass.FIRM else "watts": watts},
            name=f"job{number}",
            user_name=f"user{number % 50}",
            uid=1000 + number % 50,
            admin_comment=with_mark("", mark),
        )

    def _battery_loop(self, settings: Settings, billing: BillingState) -> BatteryLoop:
        battery = BatteryConfig(
            rated_joules=BATTERY_JOULES, max_charge_watts=BATTERY_WATTS, max_discharge_watts=BATTERY_WATTS
        )
        return BatteryLoop(
            clock=self.clock,
            meter=self.meter,
            ess=FakeEss(clock=self.clock, battery=battery),
            billing=billing,
            site=settings.site,
            battery=settings.battery,
            revert_s=30.0,
            manage=True,
        )

    def _history(self, settings: Settings) -> SiteHistory:
        history = SiteHistory(keep_s=HISTORY_S, slot_s=settings.planner.slot_s, max_gap_s=60.0)
        for wall_s, share in _past(self.clock.wall_s()):
            history.add(
                wall_s, inflexible_watts=BUILDING_WATTS * (0.7 + 0.6 * share), it_wanted_watts=IT_MAX_WATTS * share
            )
        return history


def _past(wall_s: float) -> Iterator[tuple[float, float]]:
    """Instants of the last day, and a load shape that peaks six hours from now."""
    for step in range(int(HISTORY_S / HISTORY_STEP_S), 0, -1):
        at_s = wall_s - step * HISTORY_STEP_S
        yield at_s, 0.6 + 0.35 * math.sin((at_s - wall_s) * math.tau / 86_400.0)


def _report(node_name: str, busy: Sequence[tuple[int, float]]) -> AgentReport:
    slots: list[tuple[int | None, float]] = [*busy, *[(None, GPU_IDLE_WATTS)] * (GPUS_PER_NODE - len(busy))]
    gpus = tuple(
        GpuReport(
            uuid=f"GPU-{node_name}-{index}",
            draw_watts=draw_watts,
            energy_joules=1e6,
            sm_clock_mhz=1900,
            temperature_celsius=60.0,
            utilisation_fraction=0.9,
            cap_watts=700.0,
            cap_source="found",
            min_cap_watts=200.0,
            max_cap_watts=700.0,
            job_id=job_id,
        )
        for index, (job_id, draw_watts) in enumerate(slots)
    )
    return AgentReport(node_name, float(BASE_WATTS), 0.5, gpus, lease_remaining_s=100.0)


def _settings() -> Settings:
    return Settings(
        controller=ControllerConfig(
            state_path=Path("unused"), lease_s=180.0, max_reading_age_s=30.0, history_s=HISTORY_S
        ),
        site=SiteLimits(grid_limit_watts=12e6, it_max_watts=float(IT_MAX_WATTS), pue=PUE, max_reading_age_s=30.0),
        rates=Tariff(
            energy_prices=(
                EnergyPrice(start_s=0.0, price_per_kwh=0.09),
                EnergyPrice(start_s=16 * 3600.0, price_per_kwh=0.17),
                EnergyPrice(start_s=21 * 3600.0, price_per_kwh=0.09),
            ),
            demand_price_per_kw=20.0,
        ),
        battery=BatteryLimits(
            capacity_joules=BATTERY_JOULES, max_charge_watts=BATTERY_WATTS, max_discharge_watts=BATTERY_WATTS
        ),
        planner=PlannerConfig(),
        forecast=ForecastConfig(),
        relocation=RelocationConfig(
            license_total_watts=IT_MAX_WATTS,
            gpu_max_watts=float(GPU_MAX_WATTS),
            gpu_idle_watts=GPU_IDLE_WATTS,
            min_gpu_cap_watts=200.0,
            node_base_watts=float(BASE_WATTS),
        ),
    )
