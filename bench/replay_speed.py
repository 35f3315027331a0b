"""Simulated seconds per second of the replay's twin: 1,000 nodes of 8 GPUs, made-up jobs that keep them busy.

`python -m bench.replay_speed [mean hours per job]`. Other simulators print how many times faster than real time
they are; this is the same figure. Reading the trace is not in it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from slurm_power.relocation.jobs import PowerClass
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.replay.curves import assumed_curve
from slurm_power.replay.policy import NoPolicy, Orders, Policy, View
from slurm_power.replay.settings import even_nodes, replay_config
from slurm_power.replay.trace import TraceJob
from slurm_power.replay.twin import replay

NODES, GPUS_PER_NODE = 1000, 8
DAYS = 7
LOADS = (0.8, 1.05)
_DAY_S = 86_400.0

RELOCATION = RelocationConfig(
    license_total_watts=7_000_000,
    gpu_max_watts=700.0,
    gpu_idle_watts=70.0,
    min_gpu_cap_watts=200.0,
    node_base_watts=500.0,
)


@dataclass(frozen=True)
class Speed:
    simulated_s_per_s: float
    simulated_s_per_cpu_s: float
    """The same on a machine that nobody else uses."""

    jobs: int
    starts: int


class Busy:
    """Orders of every kind in every slot, so that what orders cost is measured, too: every job that may be capped
    is, to another value each slot, and the budget changes."""

    def decide(self, view: View) -> Orders:
        running = view.running
        watts = 500.0 + 10.0 * (view.slot % 10)
        caps = {int(job_id): watts for job_id in running.job_id[running.power_class != 0]}
        budget = np.full(96, 5_500_000.0)
        budget[view.slot % 96 // 2 :] = 6_000_000.0
        return Orders(budget_watts=budget.tolist(), caps=caps)


def made_up_jobs(*, load_fraction: float, mean_runtime_s: float = 3 * 3600.0, seed: int = 0) -> list[TraceJob]:
    """Mostly one GPU, some nodes, few of many nodes; run times spread over four decades."""
    rng = np.random.default_rng(seed)
    sizes, shares = (1, 2, 4, 8, 16, 64, 256), (0.5, 0.12, 0.1, 0.18, 0.05, 0.04, 0.01)
    mean_gpus = float(np.dot(sizes, shares))
    count = int(load_fraction * NODES * GPUS_PER_NODE * DAYS * _DAY_S / (mean_gpus * mean_runtime_s))
    submit_s = np.sort(rng.random(count) * DAYS * _DAY_S)
    gpus = rng.choice(sizes, size=count, p=shares)
    runtime_s = np.clip(rng.lognormal(np.log(mean_runtime_s) - 1.125, 1.5, count), 10.0, 3 * _DAY_S)
    limit_s = np.ceil(runtime_s * rng.uniform(1.0, 4.0, count) / 900.0) * 900.0
    classes = rng.choice(len(PowerClass), size=count, p=(0.3, 0.5, 0.2))
    return [
        TraceJob(
            job_id=number + 1,
            user=f"user{number % 50}",
            submit_s=float(submit_s[number]),
            gpus=int(gpus[number]),
            runtime_s=float(runtime_s[number]),
            time_limit_s=float(limit_s[number]),
            power_class=tuple(PowerClass)[classes[number]],
        )
        for number in range(count)
    ]


def measure(policy: Policy, *, load_fraction: float, mean_runtime_s: float = 3 * 3600.0) -> Speed:
    jobs = made_up_jobs(load_fraction=load_fraction, mean_runtime_s=mean_runtime_s)
    config = replay_config(RELOCATION, even_nodes(NODES, GPUS_PER_NODE), assumed_curve(RELOCATION))
    started_s, cpu_s = time.perf_counter(), time.process_time()
    run = replay(jobs, config, policy, until_s=DAYS * _DAY_S)
    elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    simulated_s = run.slot_watts.size * run.slot_s
    return Speed(simulated_s / elapsed_s, simulated_s / cpu_s, len(jobs), len(run.starts))


def main() -> None:
    console = Console(highlight=False)
    mean_runtime_s = 3600.0 * float(sys.argv[1]) if len(sys.argv) > 1 else 3 * 3600.0
    for load_fraction in LOADS:
        for policy in (NoPolicy(), Busy()):
            speed = measure(policy, load_fraction=load_fraction, mean_runtime_s=mean_runtime_s)
            console.print(
                f"load {load_fraction:.2f}, {type(policy).__name__}: {speed.simulated_s_per_s:,.0f} x real time "
                f"({speed.simulated_s_per_cpu_s:,.0f} by CPU time), "
                f"{speed.jobs} jobs in {DAYS} days, {speed.starts} starts",
                soft_wrap=True,
            )


if __name__ == "__main__":
    main()
