"""Peak shaving with jobs: a grid event on 256 GPUs, and what battery, deferral and caps each do on a job trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bench.peak_loads import DATA, E19, PUE, battery_of, rates
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.bill import bill, metering_intervals
from slurm_power.ess.grid_event import GridEvent
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.relocation.jobs import PowerClass
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.replay.curves import Curve, assumed_curve, read_curves
from slurm_power.replay.policy import NoPolicy, Orders, View
from slurm_power.replay.results import Replay
from slurm_power.replay.settings import ReplayConfig, even_nodes, replay_config
from slurm_power.replay.site_policy import SitePolicy, SiteSetup
from slurm_power.replay.trace import Trace, TraceJob, cut, scaled
from slurm_power.replay.trace_openb import read_openb_pods
from slurm_power.replay.twin import replay

Found = dict[str, Any]
Tell = Callable[[str, float], None]

FREE = Tariff(energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.0),), demand_price_per_kw=0.0)
EVENT_START_S, EVENT_S, RAMP_S, CUT = 6 * 3600.0, 3 * 3600.0, 900.0, 0.25
EVENT_SLOT_S = 300.0
TIERS = (
    (PowerClass.FIRM, 0.0),
    (PowerClass.FLEXIBLE, 0.10),
    (PowerClass.FLEXIBLE, 0.25),
    (PowerClass.PREEMPTIBLE, 0.50),
)
"""Emerald's flexibility tiers: 0, 10, 25 and 50 % of the throughput may be lost."""


def grid_event(tell: Tell) -> Found:
    """256 GPUs that are busy; the utility asks for a quarter less for 3 h, with 15 minutes of ramp."""
    curves = _curves()
    relocation = _relocation(curves, gpus=256)
    config = replace(
        replay_config(relocation, even_nodes(32, 8), next(iter(curves.values()))), curves=curves, slot_s=EVENT_SLOT_S
    )
    trace = _busy_trace(tuple(curves))
    until_s = EVENT_START_S + EVENT_S + 3 * 3600.0
    plain = replay(trace, config, NoPolicy(), until_s=until_s)
    first, last = round(EVENT_START_S / EVENT_SLOT_S), round((EVENT_START_S + EVENT_S) / EVENT_SLOT_S)
    before_watts = float(plain.slot_watts[first - 12 : first].mean())
    event = GridEvent(
        name="a quarter less",
        start_wall_s=EVENT_START_S,
        duration_s=EVENT_S,
        limit_watts=(1 - CUT) * before_watts,
        ramp_s=RAMP_S,
        ramp_from_watts=before_watts,
    )
    policy = _policy(relocation, EVENT_SLOT_S, events=(event,), deferral=True)
    ours = replay(trace, config, policy, until_s=until_s)
    tell("grid event", 1.0)
    during = ours.slot_watts[first:last]
    held = during <= event.limit_watts * 1.005
    summary = ours.summary()
    return {
        "grid_event": {
            "asked_cut_fraction": CUT,
            "achieved_cut_fraction": 1 - float(during.mean()) / before_watts,
            "highest_slot_above_limit_fraction": float(during.max() / event.limit_watts - 1),
            "held_s": _longest(held.tolist()) * EVENT_SLOT_S,
            "firm_jobs_affected": summary.firm_jobs_touched,
            "worst_slowdown_by_class": _slowdowns(trace, policy, curves),
            "rebound_above_before_fraction": float(ours.slot_watts[last:].max() / before_watts - 1),
            "slot_watts": [round(watts) for watts in ours.slot_watts.tolist()],
            "slot_watts_without": [round(watts) for watts in plain.slot_watts.tolist()],
            "note": "a replay of the twin with Emerald's measured curves; theirs was measured on hardware",
        }
    }


def openb(tell: Tell) -> Found:
    """openb's pods on 1,000 GPUs under E-19 for ten days: what battery, deferral and caps each change."""
    trace = _openb_trace()
    relocation = _relocation(None, gpus=1000)
    config = replay_config(relocation, even_nodes(125, 8), assumed_curve(relocation))
    site = _site(relocation, PUE)
    plain = replay(trace, config, NoPolicy(), until_s=OPENB_UNTIL_S)
    peak_watts = float((site.pue * plain.slot_watts[WARM_UP_SLOTS:]).max())
    battery = battery_of(0.10 * peak_watts)
    found: Found = {}
    variants: dict[str, dict[str, Any]] = {
        "nothing": {},
        "battery": {"battery": battery, "caps": False, "deferral": False},
        "deferral": {"battery": None, "caps": False, "deferral": True},
        "caps": {"battery": None, "caps": True, "deferral": False},
        "all": {"battery": battery, "caps": True, "deferral": True},
    }
    for done, (name, parts) in enumerate(variants.items()):
        tell(f"openb: {name}", done / len(variants))
        policy = _policy(relocation, config.slot_s, tariff=E19, **parts) if parts else None
        run = plain if policy is None else replay(trace, config, policy, until_s=OPENB_UNTIL_S)
        if policy is not None:
            policy.settle(run.slot_watts.tolist())
        imports = site.pue * run.slot_watts if policy is None else np.array(policy.import_watts)
        found[name] = _outcome(imports[WARM_UP_SLOTS:], run, config)
    return {"openb_1000_gpus_e19": found}


OPENB_CUT_S = (9_900_000.0, 9_900_000.0 + 24 * 86_400.0)
OPENB_UNTIL_S = 20 * 86_400.0
WARM_UP_SLOTS = 10 * 96
OPENB_START_WALL_S = 1_562_889_600.0  # 2019-07-12: after the warm-up ten days of July remain, in one billing period


def _outcome(imports: np.ndarray, run: Replay, config: ReplayConfig) -> Found:
    start_s = OPENB_START_WALL_S + WARM_UP_SLOTS * config.slot_s
    due = bill(
        metering_intervals(imports.tolist(), start_wall_s=start_s, step_s=config.slot_s),
        tariff=rates(E19),
    )
    summary = run.summary()
    return {
        "peak_kw": round(due.peak_watts / 1000, 1),
        "bill": round(due.total, 2),
        "demand_cost": round(due.demand_cost, 2),
        "energy_kwh": round(float(imports.sum()) * config.slot_s / 3.6e6, 1),
        "gpu_hours_lost": summary.gpu_hours_lost,
        "gpu_hours_capped": summary.gpu_hours_capped,
        "timed_out": summary.timed_out,
        "finished": summary.finished,
        "wait_s": {
            str(one.value): {"p50": found.wait_p50_s, "p95": found.wait_p95_s} for one, found in summary.classes.items()
        },
    }


def _openb_trace() -> Trace:
    with (DATA / "jobs/alibaba_openb_pods.csv").open(encoding="utf-8") as lines:
        pods = read_openb_pods(lines)
    return scaled(cut(pods, *OPENB_CUT_S), gpus=1000, load_fraction=0.95, seed=1)


def _policy(
    relocation: RelocationConfig,
    slot_s: float,
    *,
    tariff: str | None = None,
    battery: BatteryLimits | None = None,
    caps: bool = True,
    deferral: bool = True,
    events: tuple[GridEvent, ...] = (),
) -> _Watched:
    planner = PlannerConfig(
        slot_s=slot_s, headroom_fraction=0.0, ramp_cost_fraction=0.0, max_shed_fraction=1.0 if caps or deferral else 0.0
    )
    setup = SiteSetup(
        start_wall_s=0.0 if tariff is None else OPENB_START_WALL_S,
        rates=FREE if tariff is None else rates(tariff),
        site=_site(relocation, 1.0 if tariff is None else PUE),
        battery=battery,
        planner=planner,
        relocation=relocation,
        caps=caps,
        deferral=deferral,
        events=events,
    )
    return _Watched(setup, slot_s)


def _site(relocation: RelocationConfig, pue: float) -> SiteLimits:
    most = float(relocation.license_total_watts)
    return SiteLimits(grid_limit_watts=10 * most, it_max_watts=most, pue=pue)


def _relocation(curves: dict[str, Curve] | None, *, gpus: int) -> RelocationConfig:
    most = 700.0 if curves is None else max(curve.cap_watts[-1] for curve in curves.values())
    least = 300.0 if curves is None else max(curve.cap_watts[0] for curve in curves.values())
    base = 800.0 if curves is None else 0.0
    return RelocationConfig(
        license_total_watts=math.ceil(gpus * most + gpus / 8 * base),
        gpu_max_watts=most,
        gpu_idle_watts=70.0 if curves is None else 50.0,
        min_gpu_cap_watts=least,
        node_base_watts=base,
        cap_step_watts=5.0,
        cap_release_margin_watts=0.0,
    )


def _curves() -> dict[str, Curve]:
    with (DATA / "training_power/emerald_dvfs_sweep.csv").open(encoding="utf-8") as lines:
        return read_curves(lines)


def _busy_trace(workloads: tuple[str, ...]) -> tuple[TraceJob, ...]:
    """32 jobs of 8 GPUs that run through the event: each tier has eight, with the workloads in turn."""
    return tuple(
        TraceJob(
            job_id=i + 1,
            user=f"user{i % 8}",
            submit_s=0.0,
            gpus=8,
            nodes=1,
            runtime_s=16 * 3600.0,
            time_limit_s=40 * 3600.0,
            power_class=TIERS[i % 4][0],
            max_slowdown_fraction=TIERS[i % 4][1],
            workload=workloads[(i // 4) % len(workloads)],
        )
        for i in range(32)
    )


class _Watched(SitePolicy):
    """Remembers the lowest cap of each job."""

    def __init__(self, setup: SiteSetup, slot_s: float) -> None:
        super().__init__(setup, NaiveForecaster(ForecastConfig(), slot_s=slot_s))
        self.lowest_caps: dict[int, float] = {}

    def decide(self, view: View) -> Orders:
        orders = super().decide(view)
        for job_id, watts in orders.caps.items():
            self.lowest_caps[job_id] = min(watts, self.lowest_caps.get(job_id, math.inf))
        return orders


def _slowdowns(trace: tuple[TraceJob, ...], policy: _Watched, curves: dict[str, Curve]) -> Found:
    """Per tier (its bound in its name) the worst loss of throughput under the lowest cap, by the measured curve."""
    worst: Found = {f"{one}, at most {bound:.0%}": 0.0 for one, bound in TIERS}
    for job in trace:
        cap = policy.lowest_caps.get(job.job_id)
        if cap is not None:
            name = f"{job.power_class}, at most {job.max_slowdown_fraction:.0%}"
            lost = 1 - float(curves[job.workload].throughput_fraction(cap))
            worst[name] = max(worst[name], lost)
    return worst


def _longest(flags: list[bool]) -> int:
    best = now = 0
    for flag in flags:
        now = now + 1 if flag else 0
        best = max(best, now)
    return best
