"""Writes a relocation plan to Slurm: one request per action, failures collected per action."""

from __future__ import annotations

from slurm_power.daemons.controller_view import Event
from slurm_power.errors import SlurmPowerError
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.relocation.plan import JobAction, RelocationPlan, ReservationAction


def apply_relocation(slurm: SlurmClient, plan: RelocationPlan, *, wall_s: float) -> list[Event]:
    """Reservations first: they are what keeps new jobs out. A refusal stops nothing else."""
    events = [
        _event(action.verb, f"reservation {action.reservation.name}", action.reason, wall_s, _reserve(slurm, action))
        for action in plan.reservations
    ]
    events += [
        _event(action.verb, f"job {action.job_id}", action.reason, wall_s, _change_job(slurm, action))
        for action in plan.jobs
    ]
    return events


def _event(verb: str, subject: str, reason: str, wall_s: float, failure: str | None) -> Event:
    return Event(wall_s=wall_s, verb=verb, subject=subject, reason=reason, failure=failure)


def _reserve(slurm: SlurmClient, action: ReservationAction) -> str | None:
    try:
        match action.verb:
            case "create":
                slurm.create_reservation(action.reservation)
            case "update":
                slurm.update_reservation(action.reservation)
            case "delete":
                slurm.delete_reservation(action.reservation.name)
            case unknown:
                return f"unknown action {unknown}"
    except SlurmPowerError as failure:
        return str(failure)
    return None


def _change_job(slurm: SlurmClient, action: JobAction) -> str | None:
    """The mark is written with (or before) the deed, so that a crash in between never hides our hand."""
    try:
        if any(part is not None for part in (action.begin_wall_s, action.licenses, action.admin_comment)):
            slurm.update_job(
                action.job_id,
                begin_wall_s=action.begin_wall_s,
                licenses=action.licenses,
                admin_comment=action.admin_comment,
            )
        if action.verb == "requeue":
            slurm.requeue(action.job_id)
    except SlurmPowerError as failure:
        return str(failure)
    return None
