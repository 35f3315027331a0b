"""plan_relocation: reservations, deferrals, caps and requeues of one tick, each with its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slurm_power.ess.plan import PlanSlot
from slurm_power.forecasting.jobs import ItDraw
from slurm_power.monitoring.readings import NodeReading
from slurm_power.relocation.jobs import Job, LicenseReservation
from slurm_power.relocation.plan import RelocationPlan
from slurm_power.relocation.settings import RelocationConfig


def plan_relocation(
    *,
    jobs: Sequence[Job],
    slots: Sequence[PlanSlot],
    nodes: Mapping[str, NodeReading],
    reservations: Sequence[LicenseReservation],
    wall_s: float,
    config: RelocationConfig,
) -> RelocationPlan:
    """All actions of this tick. `nodes` holds fresh readings only; a node that is missing is unknown.

    `reservations` is what Slurm holds now; those of others are left alone. An empty `slots` (no plan) keeps
    everything as it is.
    """
    return RelocationPlan()


def undo_relocation(
    *, jobs: Sequence[Job], reservations: Sequence[LicenseReservation], wall_s: float, config: RelocationConfig
) -> RelocationPlan:
    """Give back all that carries our mark, and nothing else."""
    return RelocationPlan()


def expected_it_draw(
    *, jobs: Sequence[Job], nodes: Mapping[str, NodeReading], wall_s: float, config: RelocationConfig
) -> ItDraw:
    """What jobs draw and will ask for if nobody held them back: the input of forecast_it_load."""
    return ItDraw(idle_watts=0.0)
