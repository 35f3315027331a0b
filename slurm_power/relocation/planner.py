"""plan_relocation: reservations, deferrals, caps and requeues of one tick, each with its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slurm_power.ess.plan import PlanSlot
from slurm_power.forecasting.jobs import ItDraw, PendingDraw, RunningDraw
from slurm_power.monitoring.readings import NodeReading
from slurm_power.relocation.caps import CapPlan, cap_action, excess_reason, is_cappable, plan_caps
from slurm_power.relocation.deferral import is_ours_to_release, plan_deferrals, release_action
from slurm_power.relocation.job_power import (
    JobPower,
    idle_watts,
    is_waiting,
    it_watts,
    job_powers,
    nominal_gpu_watts,
)
from slurm_power.relocation.jobs import Job, JobState, LicenseReservation
from slurm_power.relocation.plan import RESERVATION_PREFIX, JobAction, RelocationPlan, ReservationAction
from slurm_power.relocation.requeue import plan_requeues
from slurm_power.relocation.reservations import (
    own_reservations,
    plan_reservations,
    reservation_horizon_s,
    wanted_slices,
)
from slurm_power.relocation.room import firm_licensed_watts, room_of
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.throughput import lowest_cap_watts
from slurm_power.relocation.words import kilowatts


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

    `reservations` is what Slurm holds now; those of others are left alone. Without a plan slot for now,
    everything stays as it is.
    """
    powers = job_powers(jobs, nodes=nodes, config=config)
    if not any(slot.start_wall_s <= wall_s < slot.start_wall_s + slot.duration_s for slot in slots):
        return RelocationPlan(job_caps=_held_caps(powers), shortfalls=("no plan for now: caps and queue stay",))
    room = room_of(
        slots,
        powers,
        idle_watts=idle_watts(powers, nodes=nodes, config=config),
        free_gpus=_free_gpus(powers, nodes),
        wall_s=wall_s,
        config=config,
    )
    slices = wanted_slices(
        room,
        own_reservations(reservations, wall_s=wall_s),
        wall_s=wall_s,
        horizon_s=reservation_horizon_s(powers, config),
        config=config,
    )
    caps, requeues, shortfalls = _running(powers, slots, nodes=nodes, wall_s=wall_s, config=config)
    gone = {action.job_id for action in requeues}
    leftovers = _leftovers(powers, config)
    cleaned = {action.job_id for action in leftovers}  # one action per job and tick: each carries the whole mark
    waiting = plan_deferrals(powers, room=room, slices=slices, wall_s=wall_s, config=config)
    return RelocationPlan(
        reservations=tuple(plan_reservations(slices, reservations, wall_s=wall_s, config=config)),
        jobs=(
            *leftovers,
            *(action for action in caps.actions if action.job_id not in gone),
            *requeues,
            *(action for action in waiting if action.job_id not in cleaned),
        ),
        job_caps=tuple((job_id, watts) for job_id, watts in caps.caps.items() if job_id not in gone),
        shortfalls=shortfalls,
    )


def undo_relocation(
    *, jobs: Sequence[Job], reservations: Sequence[LicenseReservation], wall_s: float, config: RelocationConfig
) -> RelocationPlan:
    """Give back all that carries our mark, and nothing else."""
    reason = "power management gives back what it took"
    actions: list[JobAction] = []
    for power in job_powers(jobs, nodes={}, config=config):
        if is_ours_to_release(power, wall_s):
            actions.append(release_action(power, wall_s=wall_s, reason=reason))
        elif power.mark.capped_watts is not None:
            actions.append(cap_action(power, None, reason=reason, config=config))
    ours = [r for r in reservations if r.name.startswith(RESERVATION_PREFIX) and r.end_wall_s > wall_s]
    return RelocationPlan(reservations=tuple(ReservationAction("delete", r, reason) for r in ours), jobs=tuple(actions))


def expected_it_draw(
    *, jobs: Sequence[Job], nodes: Mapping[str, NodeReading], wall_s: float, config: RelocationConfig
) -> ItDraw:
    """What jobs draw and will draw if nobody held them back: the input of forecast_it_load."""
    powers = job_powers(jobs, nodes=nodes, config=config)
    running, pending = [], []
    for power in powers:
        if power.job.state is JobState.RUNNING:
            running.append(RunningDraw(_above_idle(power, config), power.end_wall_s(wall_s)))
        elif is_waiting(power):
            begin = None if power.mark.deferred_until_wall_s is not None else power.job.begin_wall_s
            watts = config.licensed_draw_fraction * _above_idle(power, config)
            pending.append(PendingDraw(watts, power.duration_s, begin))
    return ItDraw(idle_watts([], nodes=nodes, config=config), tuple(running), tuple(pending))


def firm_it_watts(
    *,
    jobs: Sequence[Job],
    nodes: Mapping[str, NodeReading],
    start_wall_s: float,
    slot_s: float,
    slots: int,
    wall_s: float,
    config: RelocationConfig,
) -> list[float]:
    """IT draw per slot that relocation cannot hold back: unoccupied nodes, firm jobs, and of running jobs what
    their lowest caps leave, until their time limits."""
    powers = job_powers(jobs, nodes=nodes, config=config)
    start = start_wall_s + slot_s * np.arange(slots, dtype=np.float64)
    end = start + slot_s
    free_gpus = _free_gpus(powers, nodes)
    firm = firm_licensed_watts(powers, start, end, free_gpus=free_gpus, wall_s=wall_s, config=config)
    total = idle_watts(powers, nodes=nodes, config=config) + config.licensed_draw_fraction * firm
    for power in powers:
        if is_cappable(power) and power.license_name != config.firm_license_name:
            asked = power.mark.request.max_slowdown_fraction
            slowdown = config.default_max_slowdown_fraction if asked is None else asked
            lowest = lowest_cap_watts(power.gpu_watts, max_slowdown_fraction=slowdown, config=config)
            end_s = power.end_wall_s(wall_s)
            during = end > wall_s if end_s is None else (end > wall_s) & (start < end_s)
            total = total + (power.busy_gpus * min(lowest, power.gpu_watts) + _base_watts(power, config)) * during
    return [float(watts) for watts in total]


def _running(
    powers: Sequence[JobPower],
    slots: Sequence[PlanSlot],
    *,
    nodes: Mapping[str, NodeReading],
    wall_s: float,
    config: RelocationConfig,
) -> tuple[CapPlan, list[JobAction], tuple[str, ...]]:
    """Caps and requeues of running jobs, and what they leave uncovered."""
    soon_s = wall_s + config.cap_lead_s
    near = [s for s in slots if s.start_wall_s <= soon_s and s.start_wall_s + s.duration_s > wall_s]
    envelope_watts = min(slot.envelope_watts for slot in near)
    drawn_watts, silent = it_watts(powers, nodes=nodes)
    held_back = sum(_held_back_watts(power) for power in powers if is_cappable(power))
    excess_watts = drawn_watts + held_back - envelope_watts
    caps = plan_caps(
        powers, excess_watts=excess_watts, reason=excess_reason(excess_watts, envelope_watts), config=config
    )
    shortfalls = [f"node {name} is unknown: its jobs count with their licences" for name in silent]
    requeues: list[JobAction] = []
    if caps.uncovered_watts > 0:
        short = f"caps leave {kilowatts(caps.uncovered_watts)} above the envelope of {kilowatts(envelope_watts)}"
        if caps.exhausted and not silent:
            requeues = plan_requeues(powers, uncovered_watts=caps.uncovered_watts, wall_s=wall_s, config=config)
        shortfalls.append(short)
    return caps, requeues, tuple(shortfalls)


def _held_back_watts(power: JobPower) -> float:
    """What our cap keeps the job from drawing now."""
    if power.mark.capped_watts is None:
        return 0.0
    drawn = power.drawn_gpu_watts if power.drawn_gpu_watts is not None else power.busy_gpus * power.mark.capped_watts
    return max(0.0, power.uncapped_watts - drawn)


def _leftovers(powers: Sequence[JobPower], config: RelocationConfig) -> list[JobAction]:
    """Caps of ours on jobs that no longer run (requeued by others) or may no longer be touched."""
    return [
        cap_action(power, None, reason="our cap has nothing left to do", config=config)
        for power in powers
        if power.mark.capped_watts is not None and not is_cappable(power) and power.job.state is not JobState.SUSPENDED
    ]


def _held_caps(powers: Sequence[JobPower]) -> tuple[tuple[int, float], ...]:
    return tuple(
        (power.job.job_id, power.mark.capped_watts)
        for power in powers
        if power.mark.capped_watts is not None and is_cappable(power)
    )


def _free_gpus(powers: Sequence[JobPower], nodes: Mapping[str, NodeReading]) -> float:
    used = sum(power.job.gpus for power in powers if power.job.state is not JobState.PENDING)
    return max(0.0, sum(len(node.gpus) for node in nodes.values()) - used)


def _above_idle(power: JobPower, config: RelocationConfig) -> float:
    return max(0.0, power.uncapped_watts - power.job.gpus * config.gpu_idle_watts)


def _base_watts(power: JobPower, config: RelocationConfig) -> float:
    """The node's part in the job's licence: what it counts beyond its GPUs."""
    nominal = power.job.gpus * nominal_gpu_watts(power.mark, config)
    before = power.mark.licenses_before
    return max(0.0, (power.licensed_watts if before is None else before) - nominal)
