"""The same jobs on the replay twin: how far its starts are from those of the real slurmctld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slurm_power.demo.result import JobSpan
from slurm_power.demo.settings import DemoSettings
from slurm_power.demo.stream import DemoJob
from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.curves import Curve
from slurm_power.replay.policy import NoPolicy
from slurm_power.replay.settings import ReplayConfig, even_nodes
from slurm_power.replay.trace import TraceJob
from slurm_power.replay.twin import replay

BACKFILL_INTERVAL_S = 1.0
"""The development cluster's bf_interval."""


@dataclass(frozen=True, slots=True)
class StartDifferences:
    """Absolute, in seconds of the run."""

    jobs: int
    median_s: float
    p95_s: float
    worst_s: float


def start_differences(
    spans: Sequence[JobSpan], stream: Sequence[DemoJob], settings: DemoSettings
) -> StartDifferences | None:
    """Of a run without power management. None: no job ran."""
    limits = {job.name: 60.0 * job.limit_minutes for job in stream}
    ran = sorted((span for span in spans if span.end_s > span.start_s), key=lambda span: span.submit_s)
    if not ran:
        return None
    jobs = [
        TraceJob(
            job_id=number,
            user="demo",
            submit_s=span.submit_s,
            gpus=span.gpus,
            nodes=1,
            runtime_s=span.end_s - span.start_s,
            time_limit_s=max(limits[span.name], span.end_s - span.start_s),
            power_class=PowerClass.FLEXIBLE,
        )
        for number, span in enumerate(ran)
    ]
    outcomes = replay(jobs, _config(settings), NoPolicy()).jobs
    starts = dict(zip(outcomes.job_id.tolist(), outcomes.first_start_s.tolist(), strict=True))
    apart = np.abs([starts[number] - span.start_s for number, span in enumerate(ran)])
    return StartDifferences(len(ran), float(np.median(apart)), float(np.quantile(apart, 0.95)), float(apart.max()))


def _uncapped(gpu_max_watts: float) -> Curve:
    """Nobody is capped here, so what a cap would do does not matter."""
    caps = (0.5 * gpu_max_watts, gpu_max_watts)
    return Curve(caps, (0.5, 1.0), caps)


def _config(settings: DemoSettings) -> ReplayConfig:
    return ReplayConfig(
        node_gpus=even_nodes(settings.nodes, settings.gpus_per_node),
        gpu_max_watts=settings.gpu_max_watts,
        gpu_idle_watts=settings.gpu_idle_watts,
        min_gpu_cap_watts=0.5 * settings.gpu_max_watts,
        node_base_watts=float(settings.node_base_watts),
        default_curve=_uncapped(settings.gpu_max_watts),
        slot_s=settings.slot_s,
        backfill_interval_s=BACKFILL_INTERVAL_S,
    )
