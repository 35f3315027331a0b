"""The product's planning on the twin: a grid event is kept within what jobs allow, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.grid_event import GridEvent
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.relocation.jobs import PowerClass
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.replay.curves import assumed_curve
from slurm_power.replay.policy import NoPolicy
from slurm_power.replay.results import Replay
from slurm_power.replay.settings import even_nodes, replay_config
from slurm_power.replay.site_policy import SitePolicy, SiteSetup
from slurm_power.replay.trace import TraceJob
from slurm_power.replay.twin import replay

SLOT_S, HOUR_S = 900.0, 3600.0
RELOCATION = RelocationConfig(
    license_total_watts=4 * 8 * 500 + 4 * 500,
    gpu_max_watts=500.0,
    gpu_idle_watts=50.0,
    min_gpu_cap_watts=200.0,
    node_base_watts=500.0,
    cap_step_watts=5.0,
    cap_release_margin_watts=0.0,
)
CLUSTER = replay_config(RELOCATION, even_nodes(4, 8), assumed_curve(RELOCATION))
SITE = SiteLimits(grid_limit_watts=1e6, it_max_watts=float(RELOCATION.license_total_watts), pue=1.0)


def job(job_id: int, power_class: PowerClass, *, submit_s: float = 0.0, hours: float = 12.0) -> TraceJob:
    return TraceJob(
        job_id=job_id, user="u", submit_s=submit_s, gpus=8, runtime_s=hours * HOUR_S, time_limit_s=3 * hours * HOUR_S,
        power_class=power_class, max_slowdown_fraction=0.3, max_delay_s=24 * HOUR_S,
    )  # fmt: skip


def policy(
    *, events: tuple[GridEvent, ...] = (), battery: BatteryLimits | None = None, demand: float = 0.0
) -> SitePolicy:
    rates = Tariff(energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.1),), demand_price_per_kw=demand)
    planner = PlannerConfig(slot_s=SLOT_S, horizon_s=12 * HOUR_S, headroom_fraction=0.0, ramp_cost_fraction=0.0)
    setup = SiteSetup(
        start_wall_s=0.0, rates=rates, site=SITE, battery=battery, planner=planner, relocation=RELOCATION, events=events
    )
    return SitePolicy(setup, NaiveForecaster(ForecastConfig(), slot_s=SLOT_S))


def run(jobs: list[TraceJob], one: SitePolicy | NoPolicy) -> Replay:
    return replay(jobs, CLUSTER, one, until_s=16 * HOUR_S)


BUSY = [job(1, PowerClass.FIRM), *(job(i, PowerClass.FLEXIBLE) for i in (2, 3, 4))]
PLAIN_WATTS = 4 * 8 * 500.0 + 4 * 500.0


@pytest.fixture(scope="module")
def cut_run() -> Replay:
    event = GridEvent(
        name="e", start_wall_s=4 * HOUR_S, duration_s=2 * HOUR_S, limit_watts=0.85 * PLAIN_WATTS,
        ramp_s=SLOT_S, ramp_from_watts=PLAIN_WATTS,
    )  # fmt: skip
    return run(BUSY, policy(events=(event,)))


def test_without_event_or_charge_nobody_is_touched() -> None:
    managed, plain = run(BUSY, policy()), run(BUSY, NoPolicy())
    assert managed.slot_watts.tolist() == plain.slot_watts.tolist()


def test_the_event_is_kept_for_its_whole_time(cut_run: Replay) -> None:
    assert cut_run.slot_watts[16:24].max() <= 0.85 * PLAIN_WATTS + 1.0


def test_before_and_after_the_ramps_everything_runs_at_full_power(cut_run: Replay) -> None:
    assert cut_run.slot_watts[14] == pytest.approx(PLAIN_WATTS)
    assert cut_run.slot_watts[30] == pytest.approx(PLAIN_WATTS)
    assert cut_run.slot_watts.max() <= PLAIN_WATTS + 1.0


def test_firm_jobs_keep_their_speed_and_flexible_ones_stay_inside_their_slowdown(cut_run: Replay) -> None:
    summary = cut_run.summary()
    assert summary.firm_jobs_touched == 0
    slowdown = summary.classes[PowerClass.FLEXIBLE].worst_slowdown_fraction
    assert slowdown is not None
    assert 0 < slowdown <= 0.3


def test_a_job_that_would_break_the_limit_starts_only_after_the_event() -> None:
    event = GridEvent(name="e", start_wall_s=4 * HOUR_S, duration_s=2 * HOUR_S, limit_watts=0.6 * PLAIN_WATTS)
    late = job(9, PowerClass.FLEXIBLE, submit_s=4.2 * HOUR_S, hours=1.0)
    jobs = [job(1, PowerClass.FIRM), job(2, PowerClass.FLEXIBLE), late]
    result = run(jobs, policy(events=(event,)))
    started = {record.job_id: record.start_s for record in result.starts}
    assert started[9] >= 6 * HOUR_S - SLOT_S
    assert result.slot_watts[16:24].max() <= 0.6 * PLAIN_WATTS + 1.0


def test_the_battery_shaves_what_the_site_imports() -> None:
    battery = BatteryLimits(
        capacity_joules=8 * HOUR_S * 1000, max_charge_watts=4000.0, max_discharge_watts=4000.0, reserve_fraction=0.0
    )
    jobs = [job(1, PowerClass.FIRM), job(2, PowerClass.FIRM, submit_s=6 * HOUR_S, hours=0.5)]
    one = policy(battery=battery, demand=20.0)
    result = run(jobs, one)
    one.settle(result.slot_watts.tolist())
    imports = np.array(one.import_watts)
    assert imports.max() < result.slot_watts.max() - 100.0  # who knows how long the second job runs
    assert len(imports) == result.slot_watts.size


def test_nobody_waits_longer_than_allowed_and_what_waits_is_not_forgotten() -> None:
    """A limit that leaves no room at all: each job starts when its time is up, and the forecast knows of it before."""
    jobs = [job(1, PowerClass.FIRM), replace(job(2, PowerClass.FLEXIBLE, submit_s=3 * HOUR_S), max_delay_s=2 * HOUR_S)]
    event = GridEvent(name="e", start_wall_s=2 * HOUR_S, duration_s=10 * HOUR_S, limit_watts=1.0)
    one = policy(events=(event,))
    result = run(jobs, one)
    started = {record.job_id: record.start_s for record in result.starts}
    assert started[2] == pytest.approx(5 * HOUR_S, abs=SLOT_S)
    assert one._held_back_watts[16] > 0
