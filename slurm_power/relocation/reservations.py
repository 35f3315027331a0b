"""Licence reservations from the room, as horizontal slices of what must be reserved.

Slurm (22.05, tried) holds a job back by the *sum* of all reservations that its run may touch, not by the largest.
So the reserved watts over time are cut into levels of equal watts, and each level is one reservation, from the
first to the last moment that level is needed: what a job sees is then the highest need within its time limit.
Counts never change, only times do. Reservations of others are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from slurm_power.relocation.job_power import JobPower
from slurm_power.relocation.jobs import LicenseReservation
from slurm_power.relocation.plan import RESERVATION_PREFIX, ReservationAction
from slurm_power.relocation.room import Room
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.words import kilowatts, when

_OVER = "it is over, and its name is needed again"  # Slurm lists an ended reservation for a while

_SAME_S = 1.5
"""Slurm keeps whole seconds: times that are nearer than this are the same."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One level of what must be reserved, and when."""

    level: int  # 0 is reserved first
    start_wall_s: float
    end_wall_s: float
    watts: int
    envelope_watts: float  # the lowest while it is needed

    @property
    def name(self) -> str:
        return f"{RESERVATION_PREFIX}level_{self.level:02d}"


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
    return min(config.reservation_horizon_s, max(config.min_reservation_horizon_s, typical_s))


def wanted_slices(
    room: Room, existing: Collection[str], *, wall_s: float, horizon_s: float, config: RelocationConfig
) -> list[Slice]:
    """The levels that are needed between now and the horizon, lowest first.

    A level that is reserved already (its name in `existing`) stays while it is needed at all; a new one must be
    needed by more than the hysteresis.
    """
    ahead = room.overlapping(wall_s, wall_s + horizon_s)
    needed = config.license_total_watts - room.available_watts[ahead]
    start, end, envelope = room.start_wall_s[ahead], room.end_wall_s[ahead], room.envelope_watts[ahead]
    level_watts = math.ceil(config.license_total_watts / config.reservation_levels)
    slices = []
    for level in range(config.reservation_levels):
        below = level * level_watts
        found = Slice(level, 0.0, 0.0, min(level_watts, config.license_total_watts - below), 0.0)
        margin = 0.0 if found.name in existing else config.reservation_hysteresis_watts
        over = (needed > below + margin).nonzero()[0]
        if not over.size or found.watts <= 0:
            break
        first, last = int(over[0]), int(over[-1])
        slices.append(
            replace(
                found,
                start_wall_s=max(float(start[first]), wall_s),
                end_wall_s=float(end[last]),
                envelope_watts=float(envelope[first : last + 1].min()),
            )
        )
    return slices


def plan_reservations(
    slices: Sequence[Slice], existing: Sequence[LicenseReservation], *, wall_s: float, config: RelocationConfig
) -> list[ReservationAction]:
    """The changes from `existing` to `slices`, deletions of what is no longer wanted last."""
    ours = own_reservations(existing, wall_s=wall_s)
    ended = [r for r in existing if r.name.startswith(RESERVATION_PREFIX) and r.end_wall_s <= wall_s]
    actions: list[ReservationAction] = []
    for one in slices:
        found = ours.pop(one.name, None)
        if found is None:
            actions += [ReservationAction("delete", old, _OVER) for old in ended if old.name == one.name]
            actions += _created(one, wall_s=wall_s, config=config)
        else:
            actions += _changed(one, found, wall_s=wall_s, config=config)
    reason = "the envelope no longer asks for it"
    return [*actions, *(ReservationAction("delete", reservation, reason) for reservation in ours.values())]


def own_reservations(existing: Sequence[LicenseReservation], *, wall_s: float) -> dict[str, LicenseReservation]:
    """Ours that have not ended, by name."""
    return {r.name: r for r in existing if r.name.startswith(RESERVATION_PREFIX) and r.end_wall_s > wall_s}


def _created(one: Slice, *, wall_s: float, config: RelocationConfig) -> list[ReservationAction]:
    """Slurm refuses a start in the past, so what is needed now is reserved from the next second on."""
    start_wall_s = max(one.start_wall_s, math.floor(wall_s) + 1.0)
    if start_wall_s >= one.end_wall_s:
        return []
    reservation = LicenseReservation(one.name, start_wall_s, one.end_wall_s, {config.license_name: one.watts})
    return [ReservationAction("create", reservation, _reason(one, wall_s=wall_s))]


def _changed(
    one: Slice, found: LicenseReservation, *, wall_s: float, config: RelocationConfig
) -> list[ReservationAction]:
    """A reservation that has begun cannot begin later: it is made anew."""
    started, due = found.start_wall_s <= wall_s + _SAME_S, one.start_wall_s <= wall_s + _SAME_S
    same_count = found.licenses.get(config.license_name) == one.watts
    if not same_count or (started and not due):
        again = ReservationAction("delete", found, "to be set aside anew, later or in another size")
        return [again, *_created(one, wall_s=wall_s, config=config)]
    start_wall_s = found.start_wall_s if started and due else max(one.start_wall_s, math.floor(wall_s) + 1.0)
    same_start = abs(found.start_wall_s - start_wall_s) < _SAME_S
    if same_start and abs(found.end_wall_s - one.end_wall_s) < _SAME_S:
        return []
    moved = replace(found, start_wall_s=start_wall_s, end_wall_s=one.end_wall_s)
    return [ReservationAction("update", moved, _reason(one, wall_s=wall_s))]


def _reason(one: Slice, *, wall_s: float) -> str:
    span = when(one.start_wall_s, one.end_wall_s, wall_s=wall_s)
    return f"{span}: the envelope falls to {kilowatts(one.envelope_watts)}; {kilowatts(one.watts)} more set aside"
