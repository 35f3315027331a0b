"""The dashboard's parts, as plain JSON objects of columns: small enough to be sent every second. Pure.

Watts are whole numbers where a person could not see the rest. Unknown is null; ages are in seconds when asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from slurm_power.daemons.controller_view import ControllerView, Event, job_json, why_by_job
from slurm_power.ess.plan import PlanSlot
from slurm_power.forecasting.forecast import LoadForecast
from slurm_power.monitoring.readings import GpuReading, NodeReading
from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import Job, JobState

JOBS_SHOWN = 200
EVENTS_SHOWN = 100
CAP_SOURCES = ("found", "user", "lease", "safe", "board")


def gpus_json(nodes: Mapping[str, NodeReading], *, now_s: float, fresh_names: Iterable[str]) -> dict[str, Any]:
    """Every GPU in one row of columns, node by node in the order of `nodes`; what a silent node's drew is unknown."""
    fresh, ordered = frozenset(fresh_names), sorted(nodes.items())
    gpus = [(gpu, name in fresh) for name, node in ordered for gpu in node.gpus]
    return {
        "nodes": [name for name, _ in ordered],
        "ages_s": [round(now_s - node.taken_at_s, 1) for _, node in ordered],
        "fresh": [int(name in fresh) for name, _ in ordered],
        "counts": [len(node.gpus) for _, node in ordered],
        "sources": CAP_SOURCES,
        "draw_watts": [_whole(gpu.draw_watts) if known else None for gpu, known in gpus],
        "cap_watts": [_whole(gpu.cap_watts) if known else None for gpu, known in gpus],
        "source": [_source(gpu) if known else None for gpu, known in gpus],
        "celsius": [_whole(gpu.temperature_celsius) if known else None for gpu, known in gpus],
        "job_id": [gpu.job_id for gpu, _ in gpus],
    }


def gpu_names_json(nodes: Mapping[str, NodeReading]) -> dict[str, list[str]]:
    """Node -> the UUIDs of its GPUs, in the order of `gpus_json`."""
    return {name: [gpu.uuid for gpu in node.gpus] for name, node in sorted(nodes.items())}


def gpu_sums_json(nodes: Iterable[NodeReading]) -> dict[str, Any]:
    """How many GPUs report, what they draw together (null: one is unknown), and who caps how many. `nodes_watts`: what
    the nodes draw whose draw is known."""
    reporting = list(nodes)
    gpus = [gpu for node in reporting for gpu in node.gpus]
    draws = [gpu.draw_watts for gpu in gpus]
    known = [draw for draw in draws if draw is not None]
    return {
        "count": len(gpus),
        "busy": sum(gpu.job_id is not None for gpu in gpus),
        "draw_watts": sum(known) if len(known) == len(draws) and draws else None,
        "known_watts": sum(known),
        "nodes_watts": sum(node.draw_watts for node in reporting if node.draw_watts is not None),
        "unreadable": sum(gpu.error is not None for gpu in gpus),
        "by_source": dict(Counter(gpu.cap_source for gpu in gpus)),
    }


def outlook_json(view: ControllerView, forecast: LoadForecast | None, *, pue: float) -> dict[str, Any] | None:
    """The plan's slots as columns, and beside them the forecast's band of the whole load; None without a plan."""
    if view.plan is None:
        return None
    slots = view.plan.slots
    columns: dict[str, Any] = {
        name: [_whole(getattr(slot, name)) for slot in slots]
        for name in ("start_wall_s", "grid_import_watts", "charge_watts", "discharge_watts", "envelope_watts")
    }
    columns |= {
        "limit_watts": [_whole(view.plan.target_watts if s.limit_watts is None else s.limit_watts) for s in slots],
        "it_watts": [_whole(s.it_wanted_watts - s.it_shed_watts + s.it_recovered_watts) for s in slots],
        "it_wanted_watts": [_whole(s.it_wanted_watts) for s in slots],
        "stored_joules": [round(s.stored_joules) for s in slots],
        "price_per_kwh": [s.price_per_kwh for s in slots],
        "promised": [s.promised for s in slots],
    }
    return {
        "made_wall_s": view.plan.made_wall_s,
        "slot_s": slots[0].duration_s if slots else None,
        "target_watts": view.plan.target_watts,
        "cost": view.plan.cost,
        "slots": columns,
        "forecast": None if forecast is None else _band(forecast, slots, pue),
    }


def jobs_live_json(view: ControllerView) -> dict[str, Any]:
    """How many there are of each kind, and the first JOBS_SHOWN: those we touched first, then those that wait."""
    shown = [job for job in view.jobs if job.state in (JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED)]
    why = why_by_job(view)
    marks = {job.job_id: parse_mark(job.admin_comment) for job in shown}

    def rank(job: Job) -> tuple[int, int]:
        mark = marks[job.job_id]
        touched = mark.capped_watts is not None or mark.deferred_until_wall_s is not None
        for_watts = job.state is JobState.PENDING and job.state_reason == "Licenses"
        return (0 if touched or for_watts else 1 if job.state is JobState.PENDING else 2, job.job_id)

    return {
        "running": sum(job.state is JobState.RUNNING for job in shown),
        "waiting": sum(job.state is JobState.PENDING for job in shown),
        "suspended": sum(job.state is JobState.SUSPENDED for job in shown),
        "waiting_for_watts": sum(job.state is JobState.PENDING and job.state_reason == "Licenses" for job in shown),
        "deferred": sum(mark.deferred_until_wall_s is not None for mark in marks.values()),
        "capped": sum(mark.capped_watts is not None for mark in marks.values()),
        "shown": [job_json(job, why) | {"gpus": job.gpus} for job in sorted(shown, key=rank)[:JOBS_SHOWN]],
    }


def feed_json(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The latest decisions, newest first."""
    return [asdict(event) for event in reversed(events[-EVENTS_SHOWN:])]


def _band(forecast: LoadForecast, slots: Sequence[PlanSlot], pue: float) -> dict[str, Any]:
    """Building + PUE x IT at the same quantile of both: rather too wide, for nobody knows how the two go together."""
    building, it = forecast.inflexible, forecast.it
    index = [round((slot.start_wall_s - building.start_wall_s) / building.slot_s) for slot in slots]

    def column(quantile: float, of_building: float, of_it: float) -> list[int | None]:
        low, high = building.quantile(quantile), it.quantile(quantile)
        known = [i if 0 <= i < min(len(low), len(high)) else None for i in index]
        return [None if i is None else _whole(of_building * low[i] + of_it * high[i]) for i in known]

    names = {0.1: "low", 0.5: "median", 0.9: "high"}
    return {
        "model": building.model,
        **{f"load_{name}_watts": column(q, 1.0, pue) for q, name in names.items()},
        **{f"it_{name}_watts": column(q, 0.0, 1.0) for q, name in names.items()},
    }


def _source(gpu: GpuReading) -> int | None:
    return CAP_SOURCES.index(gpu.cap_source) if gpu.cap_source in CAP_SOURCES else None


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value)
