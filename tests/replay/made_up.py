"""Round numbers: 100 W a busy GPU, 10 W an idle one, 40 W a node; half the power leaves 0.8 of the speed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from slurm_power.replay.curves import Curve
from slurm_power.replay.policy import Orders, View
from slurm_power.replay.results import Replay
from slurm_power.replay.settings import ReplayConfig, even_nodes
from slurm_power.replay.trace import TraceJob

CURVE = Curve((0.0, 50.0, 100.0), (0.0, 0.8, 1.0), (0.0, 50.0, 100.0))


def config(nodes: int = 1, gpus_per_node: int = 4, **changes: Any) -> ReplayConfig:
    values = {
        "node_gpus": even_nodes(nodes, gpus_per_node),
        "gpu_max_watts": 100.0,
        "gpu_idle_watts": 10.0,
        "min_gpu_cap_watts": 20.0,
        "node_base_watts": 40.0,
        "default_curve": CURVE,
        "slot_s": 100.0,
        "backfill_interval_s": 0.0,
        "requeue_delay_s": 0.0,
        "checkpoint_interval_s": 60.0,
    }
    return ReplayConfig(**{**values, **changes})


def jobs(*described: dict[str, Any]) -> tuple[TraceJob, ...]:
    """Numbered from 1; one GPU for 100 s from second 0, with that as its limit, unless said otherwise."""
    numbers = itertools.count(1)
    return tuple(_job(next(numbers), **one) for one in described)


def _job(job_id: int, **values: Any) -> TraceJob:
    runtime_s = values.setdefault("runtime_s", 100.0)
    return TraceJob(
        **{"job_id": job_id, "user": "ada", "submit_s": 0.0, "gpus": 1, "time_limit_s": runtime_s, **values}
    )


class Scripted:
    """Orders by slot; nothing in all others."""

    def __init__(self, orders: dict[int, Orders] | Callable[[View], Orders]) -> None:
        self._orders = orders
        self.views: list[dict[str, Any]] = []

    def decide(self, view: View) -> Orders:
        self.views.append({"now_s": view.now_s, "pending": view.pending, "running": view.running, "ended": view.ended})
        return self._orders.get(view.slot, Orders()) if isinstance(self._orders, dict) else self._orders(view)


def started_s(run: Replay) -> dict[int, float]:
    """The last start of each job."""
    return {one.job_id: one.start_s for one in run.starts}


def ended_s(run: Replay) -> dict[int, float]:
    return dict(zip(run.jobs.job_id.tolist(), run.jobs.end_s.tolist(), strict=True))
