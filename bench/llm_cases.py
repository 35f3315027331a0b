"""What `bench.llm` simulates: each case by name, run in a process of its own; the week is made there from its seed."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from slurm_power.adapters.serving_profile_file import read_serving_profile
from slurm_power.llm.arrivals import ArrivalConfig
from slurm_power.llm.profile import ServingProfile
from slurm_power.replay.serving.baseline import fewest_servers
from slurm_power.replay.serving.foresight import template_of
from slurm_power.replay.serving.policies import Prices, SimulationConfig, policy_named
from slurm_power.replay.serving.result import Outcome
from slurm_power.replay.serving.simulate import simulate
from slurm_power.replay.serving.slower import slower
from slurm_power.replay.serving.trace import Requests, read_requests, scaled, week_of, with_burst

TRACE = Path("../shared/data/llm/azure_2023_conversation.csv")
PROFILE = "llama-70b-h100"
PRICES = Prices()
BURST_AT_S, BURST_LENGTH_S, LOST_AT_S = 11 * 3600.0, 600.0, 13 * 3600.0
"""Of a Monday: on the way to the peak, and at it nearly."""


@dataclass(frozen=True)
class Case:
    name: str
    policy: str
    servers: int
    peak_factor: float | None = None  # of a week; None: the plain hour
    days: int = 7
    scale: float = 1.0  # of the plain hour
    slowness: float = 1.0  # of the instances against their profile
    predictor_right_fraction: float = 0.8
    burst: bool = False
    loses_server: bool = False


@dataclass(frozen=True)
class Found:
    figures: Mapping[str, float]
    more: Mapping[str, Any]


@lru_cache(maxsize=1)
def hour() -> Requests:
    with TRACE.open(encoding="utf-8") as lines:
        return read_requests(lines, where=str(TRACE))


@lru_cache(maxsize=2)
def requests_of(peak_factor: float | None, days: int, scale: float, seed: int = 0) -> Requests:
    if peak_factor is not None:
        return week_of(hour(), peak_factor=peak_factor, days=days, seed=seed)
    return hour() if scale == 1.0 else scaled(hour(), scale)


@lru_cache(maxsize=1)
def template(peak_factor: float) -> Mapping[int, float]:
    """The week before, which is another draw."""
    return template_of(week_of(hour(), peak_factor=peak_factor, seed=1), ArrivalConfig())


def servers_of(peak_factor: float | None, days: int, scale: float) -> int:
    return fewest_servers(requests_of(peak_factor, days, scale), profile())


@lru_cache(maxsize=1)
def profile() -> ServingProfile:
    return read_serving_profile(Path(PROFILE))


def run(case: Case) -> Found:
    requests = requests_of(case.peak_factor, case.days, case.scale)
    if case.burst:
        requests = with_burst(requests, from_s=BURST_AT_S, length_s=BURST_LENGTH_S)
    config = SimulationConfig(
        policy=policy_named(case.policy),
        profile=profile(),
        truth=None if case.slowness == 1.0 else slower(profile(), case.slowness),
        servers=case.servers,
        predictor_right_fraction=case.predictor_right_fraction,
        template={} if case.peak_factor is None else template(case.peak_factor),
        lost_server_at_s=LOST_AT_S if case.loses_server else None,
    )
    gc.disable()  # millions of small tuples, no cycles
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    outcome = simulate(requests, config)
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    return Found(figures(outcome), more(outcome) | {"wall_s": wall_s, "cpu_s": cpu_s, "servers": case.servers})


def figures(outcome: Outcome) -> dict[str, float]:
    return {
        "energy_joules": outcome.energy_joules,
        "joules_per_token": outcome.joules_per_token,
        "slo_attainment_fraction": outcome.attainment_fraction,
        "ttft_p99_s": outcome.ttft_s[-1],
        "tbt_p99_s": outcome.tbt_s[-1],
        "gpu_hours": outcome.gpu_hours,
        "cost": outcome.cost(PRICES),
        "carbon_g": outcome.carbon_g(PRICES),
    }


def more(outcome: Outcome) -> dict[str, Any]:
    """What the table shows beside; not in the JSON."""
    return {
        "requests": outcome.requests,
        "lost": outcome.lost,
        "retried": outcome.retried,
        "host_joules": outcome.host_joules,
        "server_hours": outcome.server_hours,
        "starts": outcome.starts,
        "boots": outcome.boots,
        "power_p50_watts": outcome.power_watts(0.5),
        "power_p99_watts": outcome.power_watts(0.99),
        "ttft_p50_s": outcome.ttft_s[0],
        "tbt_p50_s": outcome.tbt_s[0],
        "worst_class": min((one.attainment_fraction, name) for name, one in outcome.classes.items()),
    }


def sensitivity_cases(peak_factor: float, servers: int) -> dict[str, Case]:
    """Over one Monday."""
    usual = Case("usual", "all", servers, peak_factor=peak_factor, days=1)
    return {
        "usual": usual,
        "instances_15_percent_slower": replace(usual, slowness=1.15),
        "instances_15_percent_faster": replace(usual, slowness=1 / 1.15),
        "predictor_50_percent_wrong": replace(usual, predictor_right_fraction=0.5),
        "arrivals_doubled_10_min": replace(usual, burst=True),
        "server_lost": replace(usual, loses_server=True),
    }
