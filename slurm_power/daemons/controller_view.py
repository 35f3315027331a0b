"""What the controller knows, as plain JSON objects: the one shape that CLI, dashboard and tests read.

Ages are in seconds at the moment of asking; watts, joules and fractions as everywhere. Unknown is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from slurm_power.daemons.overrides import Overrides
from slurm_power.daemons.parts_watch import NO_PARTS, PartsView
from slurm_power.ess.plan import DispatchPlan
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.forecasting.forecast import LoadForecast
from slurm_power.monitoring.readings import EssReading, GridReading, NodeReading, Snapshot
from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import Job, JobState
from slurm_power.relocation.plan import RelocationPlan


@dataclass(frozen=True, slots=True)
class Event:
    """One decision: what was done to whom, why, and whether the world accepted it."""

    wall_s: float
    verb: str
    subject: str  # "job 12", "reservation slurm_power_...", "ess"
    reason: str
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class ControllerView:
    """One consistent picture; replaced as a whole after every tick."""

    mode: str = "manage"
    ticks: int = 0
    ticked_at_s: float | None = None
    snapshot: Snapshot | None = None
    plan: DispatchPlan | None = None
    relocation: RelocationPlan = field(default_factory=RelocationPlan)
    jobs: Sequence[Job] = ()
    events: Sequence[Event] = ()
    forecast: LoadForecast | None = None  # what the plan was made with


@dataclass(frozen=True, slots=True)
class FastView:
    """The battery loop's picture; replaced after every fast tick."""

    grid: GridReading | None = None
    ess: EssReading | None = None
    setpoint: EssSetpoint | None = None
    clamped: tuple[str, ...] = ()
    interval_average_watts: float | None = None
    interval_remaining_s: float | None = None
    peak_watts: float | None = None  # highest closed interval of this billing period
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    """All that the controller knows at one moment."""

    view: ControllerView
    fast: FastView
    nodes: Mapping[str, NodeReading]
    """The last reading of every node, old ones too."""

    reporting: frozenset[str]
    """Those whose reading is fresh."""

    it_watts: float | None
    now_s: float
    wall_s: float
    parts: PartsView = NO_PARTS
    overrides: Overrides = field(default_factory=Overrides)


def status_json(seen: Picture) -> dict[str, Any]:
    nodes, parts, now_s = seen.nodes, seen.parts, seen.now_s
    return {
        **site_json(seen),
        "nodes": [_aged(node, now_s) | {"draw_watts": node.draw_watts} for _, node in sorted(nodes.items())],
        "parts": {name: _aged(reading, now_s) for name, reading in sorted(parts.parts.items())},
        "conservation": None if parts.conservation is None else asdict(parts.conservation),
    }


def site_json(seen: Picture) -> dict[str, Any]:
    """`status_json` without what there is many of."""
    view, fast, nodes, parts, now_s = seen.view, seen.fast, seen.nodes, seen.parts, seen.now_s
    return {
        "mode": view.mode,
        "overrides": asdict(seen.overrides),
        "ticks": view.ticks,
        "tick_age_s": None if view.ticked_at_s is None else now_s - view.ticked_at_s,
        "target_watts": None if view.plan is None else view.plan.target_watts,
        "peak_watts": fast.peak_watts,
        "interval": {"average_watts": fast.interval_average_watts, "remaining_s": fast.interval_remaining_s},
        "grid": _aged(fast.grid, now_s),
        "ess": _aged(fast.ess, now_s),
        "setpoint": None if fast.setpoint is None else asdict(fast.setpoint),
        "clamped": list(fast.clamped),
        "it": {
            "draw_watts": seen.it_watts,
            "age_s": max((now_s - nodes[name].taken_at_s for name in seen.reporting), default=None),
            "nodes_reporting": len(seen.reporting),
        },
        "failures": {**_failures(view, fast), **parts.failures},
        "notes": list(parts.notes),
        "shortfalls": [*(view.plan.shortfalls if view.plan else ()), *view.relocation.shortfalls],
    }


def plan_json(view: ControllerView, fast: FastView) -> dict[str, Any]:
    """`failures`: what was unknown to this plan."""
    failures = _failures(view, fast)
    if view.plan is None:
        return {"plan": None, "failures": failures}
    return {"plan": asdict(view.plan), "relocation": asdict(view.relocation), "failures": failures}


def _failures(view: ControllerView, fast: FastView) -> dict[str, str]:
    return {**(view.snapshot.failures if view.snapshot else {}), **fast.failures}


def jobs_json(view: ControllerView) -> list[dict[str, Any]]:
    """Pending and running jobs, each with what we know about why it waits or runs slower."""
    why = why_by_job(view)
    return [
        job_json(job, why) for job in view.jobs if job.state in (JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED)
    ]


def job_json(job: Job, why: Callable[[Job], str]) -> dict[str, Any]:
    mark = parse_mark(job.admin_comment)
    return {
        "job_id": job.job_id,
        "user_name": job.user_name,
        "name": job.name,
        "state": job.state.value,
        "state_reason": job.state_reason,
        "power_class": mark.request.power_class,
        "licenses": dict(job.licenses),
        "capped_watts": mark.capped_watts,
        "deferred_until_wall_s": mark.deferred_until_wall_s,
        "why": why(job),
    }


def why_by_job(view: ControllerView) -> Callable[[Job], str]:
    """The last decision about a job, else what Slurm's own reason means here."""
    decisions = {event.subject: event.reason for event in view.events}
    reasons = [action.reason for action in view.relocation.reservations]
    held = [event.reason for event in view.events if event.subject.startswith("reservation ")]
    latest = (reasons or held or ["no reservation of ours"])[-1]

    def why(job: Job) -> str:
        decided = decisions.get(f"job {job.job_id}")
        if decided is not None:
            return decided
        if job.state is not JobState.PENDING:
            return ""
        if job.state_reason == "Licenses":
            asked = ",".join(f"{name}:{count}" for name, count in job.licenses.items())
            return f"waits for watts: asks {asked}; {latest}"
        return f"Slurm: {job.state_reason}"

    return why


def ess_json(view: ControllerView, fast: FastView, *, now_s: float) -> dict[str, Any]:
    schedule = (
        []
        if view.plan is None
        else [
            {
                "start_wall_s": slot.start_wall_s,
                "charge_watts": slot.charge_watts,
                "discharge_watts": slot.discharge_watts,
                "stored_joules": slot.stored_joules,
            }
            for slot in view.plan.slots
        ]
    )
    return {
        "ess": _aged(fast.ess, now_s),
        "setpoint": None if fast.setpoint is None else asdict(fast.setpoint),
        "clamped": list(fast.clamped),
        "schedule": schedule,
    }


def events_json(view: ControllerView) -> list[dict[str, Any]]:
    return [asdict(event) for event in view.events]


def _aged(reading: GridReading | EssReading | NodeReading | None, now_s: float) -> Any:
    if reading is None:
        return None
    content = asdict(reading)
    content["age_s"] = now_s - content.pop("taken_at_s")
    return content
