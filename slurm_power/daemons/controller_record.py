"""What the controller writes to the telemetry store. Pure: views in, points out."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_power.daemons.controller_view import Event, FastView
from slurm_power.daemons.site_history import MEASUREMENT
from slurm_power.ess.plan import DispatchPlan
from slurm_power.ports.telemetry_store import FieldValue, Point


def site_point(
    fast: FastView,
    plan: DispatchPlan | None,
    *,
    it_watts: float | None,
    it_wanted_watts: float | None,
    inflexible_watts: float | None,
    wall_s: float,
) -> Point | None:
    """One line of the site's history; what is unknown is left out. None when nothing is known."""
    grid, ess = fast.grid, fast.ess
    values: dict[str, float | None] = {
        "grid_import_watts": None if grid is None or "meter" in fast.failures else grid.import_watts,
        "it_watts": it_watts,
        "it_wanted_watts": it_wanted_watts,
        "inflexible_watts": inflexible_watts,
        "charge_watts": None if ess is None or "pcs" in fast.failures else ess.charge_watts,
        "discharge_watts": None if ess is None or "pcs" in fast.failures else ess.discharge_watts,
        "stored_fraction": None if ess is None or "pcs" in fast.failures else ess.stored_fraction,
        "target_watts": None if plan is None else plan.target_watts,
        "interval_average_watts": fast.interval_average_watts,
    }
    known: dict[str, FieldValue] = {name: value for name, value in values.items() if value is not None}
    return Point(MEASUREMENT, wall_s, known) if known else None


def decision_points(events: Sequence[Event]) -> list[Point]:
    """One point per decision; the index keeps decisions of one instant apart."""
    return [
        Point(
            "decision",
            event.wall_s + index * 1e-6,
            {"subject": event.subject, "reason": event.reason, "failure": event.failure or ""},
            {"verb": event.verb},
        )
        for index, event in enumerate(events)
    ]


def plan_points(plan: DispatchPlan | None, *, wall_s: float) -> list[Point]:
    """The plan's first slot and its target: enough to see later what was intended when."""
    slot = None if plan is None else plan.slot_at(wall_s)
    if plan is None or slot is None:
        return []
    return [
        Point(
            "plan",
            wall_s,
            {
                "target_watts": plan.target_watts,
                "envelope_watts": slot.envelope_watts,
                "it_wanted_watts": slot.it_wanted_watts,
                "it_shed_watts": slot.it_shed_watts,
                "charge_watts": slot.charge_watts,
                "discharge_watts": slot.discharge_watts,
                "shortfalls": "; ".join(plan.shortfalls),
            },
        )
    ]
