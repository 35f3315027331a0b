"""Licence reservations from the room, on a fixed grid of blocks: windows never move, only their watts change.

So two reservations of ours never overlap (Slurm refuses to reserve a licence twice), no gap ever opens between
them, and a re-plan is a handful of count updates. Reservations of others are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slurm_power.relocation.job_power import JobPower
from slurm_power.relocation.jobs import LicenseReservation
from slurm_power.relocation.plan import RESERVATION_PREFIX, ReservationAction
from slurm_power.relocation.room import Room
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.words import kilowatts, when

_SAME_S = 1.5
"""Slurm keeps whole seconds: ends that are nearer than this are the same."""


@dataclass(frozen=True, slots=True)
class Block:
    """One window of the grid and what must be reserved in it."""

    start_wall_s: float
    end_wall_s: float
    watts: int
    envelope_watts: float  # the lowest of its slots


def reservation_horizon_s(powers: Sequence[JobPower], config: RelocationConfig) -> float:
    """How far ahead to reserve.

    Slurm holds a job back if its time limit reaches into a reservation. While limits are believed, that is
    right for the whole horizon. Where finished jobs have shown that limits are generous, reserving further than
    the typical job really runs would only hold back jobs that end before; longer ones are deferred one by one.
    """
    if not powers or powers[0].runtime_fraction >= 1.0:
        return config.reservation_horizon_s
    durations_s = sorted(math.inf if power.duration_s is None else power.duration_s for power in powers)
    typical_s = durations_s[len(durations_s) // 2]
    return min(config.reservation_horizon_s, max(2 * config.reservation_block_s, typical_s))


def wanted_blocks(room: Room, *, wall_s: float, horizon_s: float, config: RelocationConfig) -> list[Block]:
    """What should be reserved from now to the horizon, in order; a block counts with its tightest slot."""
    step, total, length_s = config.reservation_step_watts, config.license_total_watts, config.reservation_block_s
    first = math.floor(wall_s / length_s)
    blocks = []
    for index in range(first, math.ceil((wall_s + horizon_s) / length_s)):
        start_wall_s, end_wall_s = index * length_s, (index + 1) * length_s
        during = room.overlapping(max(start_wall_s, wall_s), end_wall_s)
        if not during.any():
            continue
        available_watts = float(room.available_watts[during].min())
        watts = min(total, math.ceil((total - available_watts) / step - 1e-9) * step)
        if watts > 0:
            blocks.append(Block(start_wall_s, end_wall_s, watts, float(room.envelope_watts[during].min())))
    return blocks


def plan_reservations(
    blocks: Sequence[Block],
    existing: Sequence[LicenseReservation],
    *,
    wall_s: float,
    config: RelocationConfig,
) -> list[ReservationAction]:
    """The changes from `existing` to `blocks`, deletions last."""
    ours = {r.name: r for r in existing if r.name.startswith(RESERVATION_PREFIX) and r.end_wall_s > wall_s}
    actions: list[ReservationAction] = []
    for block in blocks:
        found = ours.get(_name(block))
        if found is None:
            actions += _created(block, wall_s=wall_s, config=config)
        elif abs(found.end_wall_s - block.end_wall_s) < _SAME_S:
            del ours[found.name]
            actions += _updated(block, found, wall_s=wall_s, config=config)
    reason = "the envelope no longer asks for it"
    return [*actions, *(ReservationAction("delete", reservation, reason) for reservation in ours.values())]


def _created(block: Block, *, wall_s: float, config: RelocationConfig) -> list[ReservationAction]:
    """Slurm refuses a start in the past, so a block that has begun is reserved from the next second on."""
    start_wall_s = block.start_wall_s if block.start_wall_s > wall_s else math.floor(wall_s) + 1.0
    if start_wall_s >= block.end_wall_s:
        return []
    reservation = LicenseReservation(_name(block), start_wall_s, block.end_wall_s, {config.license_name: block.watts})
    return [ReservationAction("create", reservation, _reason(block, wall_s=wall_s))]


def _updated(
    block: Block, found: LicenseReservation, *, wall_s: float, config: RelocationConfig
) -> list[ReservationAction]:
    """Too little is mended at once; too much only when it is more than the hysteresis."""
    held = found.licenses.get(config.license_name, 0)
    if block.watts <= held <= block.watts + config.reservation_hysteresis_watts:
        return []
    changed = replace(found, licenses={config.license_name: block.watts})
    return [ReservationAction("update", changed, _reason(block, wall_s=wall_s))]


def _name(block: Block) -> str:
    return f"{RESERVATION_PREFIX}{block.start_wall_s:.0f}"


def _reason(block: Block, *, wall_s: float) -> str:
    span = when(block.start_wall_s, block.end_wall_s, wall_s=wall_s)
    return f"{span}: the envelope is {kilowatts(block.envelope_watts)}; {kilowatts(block.watts)} of licences set aside"
