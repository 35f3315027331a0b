"""What the controller tells Prometheus: the site, never a single job. GPUs are told by their own agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from slurm_power.daemons.controller_view import ControllerView, Event, Picture
from slurm_power.monitoring.openmetrics import Family, counter, gauge
from slurm_power.relocation.job_mark import parse_mark
from slurm_power.relocation.jobs import JobState


@dataclass(frozen=True, slots=True)
class DecisionCounts:
    """Since the controller's start, by (verb, outcome): the events that are kept are too few for a counter."""

    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def with_events(self, events: Iterable[Event]) -> DecisionCounts:
        new = Counter((event.verb, "refused" if event.failure else "done") for event in events)
        return DecisionCounts(dict(Counter(self.counts) + new)) if new else self


def controller_metrics(
    seen: Picture, *, healthy: bool, decisions: DecisionCounts, energy_joules: float | None
) -> list[Family]:
    """`energy_joules`: imported in the open billing period."""
    return [
        gauge("controller_healthy", "1 while the controller plans in time", healthy),
        gauge("controller_acts", "1 in mode manage, 0 while it only observes", seen.view.mode == "manage"),
        gauge("controller_held", "1 while an admin holds the automation", seen.overrides.hold is not None),
        counter("controller_ticks", "Plans made since the start", seen.view.ticks),
        gauge("controller_tick_age_seconds", "Since the last plan", _tick_age_s(seen), unit="seconds"),
        *_site(seen),
        *_battery(seen),
        *_plan(seen),
        gauge("billing_energy_joules", "Measured import of the billing period", energy_joules, unit="joules"),
        *_nodes(seen),
        _jobs(seen.view),
        _decisions(decisions),
        gauge("troubles", "Devices and services that do not answer as they should", len(_troubles(seen))),
        gauge("shortfalls", "What the present plan cannot meet", _shortfalls(seen.view)),
    ]


def _site(seen: Picture) -> list[Family]:
    grid, fast = seen.fast.grid, seen.fast
    known = None if grid is None or "meter" in fast.failures else grid
    age_s = None if grid is None else seen.now_s - grid.taken_at_s
    plan = seen.view.plan
    return [
        gauge("grid_import_watts", "Grid meter, import", None if known is None else known.import_watts, unit="watts"),
        gauge("grid_export_watts", "Grid meter, export", None if known is None else known.export_watts, unit="watts"),
        gauge("grid_reading_age_seconds", "Age of the meter's last reading", age_s, unit="seconds"),
        gauge(
            "target_watts", "Grid import that is defended", None if plan is None else plan.target_watts, unit="watts"
        ),
        gauge("peak_watts", "Highest metering interval of the billing period", fast.peak_watts, unit="watts"),
        gauge(
            "interval_average_watts", "Mean of the open metering interval", fast.interval_average_watts, unit="watts"
        ),
        gauge("it_watts", "Draw of all nodes; absent while a node is silent", seen.it_watts, unit="watts"),
    ]


def _battery(seen: Picture) -> list[Family]:
    ess, age_s = seen.fast.ess, None
    if ess is not None:
        age_s = seen.now_s - ess.taken_at_s
    known = None if "pcs" in seen.fast.failures else ess
    values = (None,) * 5 if known is None else (
        known.stored_fraction, known.health_fraction, known.charge_watts, known.discharge_watts, len(known.alarms),
    )  # fmt: skip
    stored, health, charge, discharge, alarms = values
    return [
        gauge("battery_stored_ratio", "State of charge", stored, unit="ratio"),
        gauge("battery_health_ratio", "State of health", health, unit="ratio"),
        gauge("battery_charge_watts", "What the PCS takes in, at the AC side", charge, unit="watts"),
        gauge("battery_discharge_watts", "What the PCS gives, at the AC side", discharge, unit="watts"),
        gauge("battery_alarms", "Alarms that the PCS tells", alarms),
        gauge("battery_reading_age_seconds", "Age of the PCS's last reading", age_s, unit="seconds"),
    ]


def _plan(seen: Picture) -> list[Family]:
    plan = seen.view.plan
    slot = None if plan is None else plan.slot_at(seen.wall_s)
    envelope, shed = (None, None) if slot is None else (slot.envelope_watts, slot.it_shed_watts)
    return [
        gauge("plan_envelope_watts", "What the IT load may draw now", envelope, unit="watts"),
        gauge("plan_shed_watts", "IT load that the plan keeps away now", shed, unit="watts"),
    ]


def _nodes(seen: Picture) -> list[Family]:
    reporting = gauge("nodes_reporting", "Nodes whose agent has reported lately", len(seen.reporting))
    age = gauge("node_report_age_seconds", "Since the node's last report", unit="seconds")
    gpus = gauge("gpus", "GPUs that report, by who asked for their cap")
    for name, node in sorted(seen.nodes.items()):
        age.add(seen.now_s - node.taken_at_s, node=name)
    sources = Counter(gpu.cap_source for name in seen.reporting for gpu in seen.nodes[name].gpus)
    for source, count in sorted(sources.items()):
        gpus.add(count, cap_source=source)
    return [reporting, age, gpus]


def _jobs(view: ControllerView) -> Family:
    family = gauge("jobs", "Jobs by state, and by what power management does to them")
    counts: Counter[tuple[str, str]] = Counter()
    for job in view.jobs:
        if job.state in (JobState.PENDING, JobState.RUNNING, JobState.SUSPENDED):
            mark = parse_mark(job.admin_comment)
            deferred, capped = mark.deferred_until_wall_s is not None, mark.capped_watts is not None
            held = job.state is JobState.PENDING and job.state_reason == "Licenses"
            action = "deferred" if deferred else "capped" if capped else "waits_for_watts" if held else "none"
            counts[job.state.value.lower(), action] += 1
    for (state, action), count in sorted(counts.items()):
        family.add(count, state=state, action=action)
    return family


def _decisions(decisions: DecisionCounts) -> Family:
    family = counter("decisions", "Decisions since the start")
    for (verb, outcome), count in sorted(decisions.counts.items()):
        family.add(count, verb=verb, outcome=outcome)
    return family


def _tick_age_s(seen: Picture) -> float | None:
    ticked_at_s = seen.view.ticked_at_s
    return None if ticked_at_s is None else seen.now_s - ticked_at_s


def _troubles(seen: Picture) -> Mapping[str, str]:
    return {**(seen.view.snapshot.failures if seen.view.snapshot else {}), **seen.fast.failures, **seen.parts.failures}


def _shortfalls(view: ControllerView) -> int:
    return len(view.plan.shortfalls if view.plan else ()) + len(view.relocation.shortfalls)
