"""Licence reservations from the room: few, quantised, and changed only when it matters. Only ours are touched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from slurm_power.relocation.jobs import LicenseReservation
from slurm_power.relocation.plan import RESERVATION_PREFIX, ReservationAction
from slurm_power.relocation.room import Room
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.relocation.words import kilowatts, when

_SAME_S = 1.5
"""Slurm keeps whole seconds: starts and ends that are nearer than this are the same."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring slots with one number of reserved watts."""

    start_wall_s: float
    end_wall_s: float
    watts: int
    lowest_watts: int  # before merging
    envelope_watts: float  # the lowest of its slots


def wanted_blocks(room: Room, *, wall_s: float, config: RelocationConfig) -> list[Block]:
    """What should be reserved from now to the horizon, in order, without overlaps."""
    blocks: list[Block] = []
    for slot in _reserved_slots(room, wall_s=wall_s, config=config):
        last = blocks[-1] if blocks else None
        if last is not None and last.end_wall_s == slot.start_wall_s:
            joined = _joined(last, slot)
            if joined.watts - joined.lowest_watts <= config.reservation_merge_watts:
                blocks[-1] = joined
                continue
        blocks.append(slot)
    return _at_most(blocks, config.max_reservations)


def plan_reservations(
    blocks: Sequence[Block],
    existing: Sequence[LicenseReservation],
    *,
    wall_s: float,
    config: RelocationConfig,
) -> list[ReservationAction]:
    """The fewest changes from `existing` to `blocks`. Deletions come last, so that there is no gap between:
    a moment of double reservation holds a job back for that moment; a gap would let it start for good.
    """
    ours = [r for r in existing if r.name.startswith(RESERVATION_PREFIX) and r.end_wall_s > wall_s]
    pairs, left, unmatched = _paired(blocks, ours, wall_s=wall_s)
    names = {r.name for r in existing}
    actions: list[ReservationAction] = []
    for block, found in pairs:
        changed = _changed(block, found, wall_s=wall_s, config=config)
        if changed is not None:
            actions.append(ReservationAction("update", changed, _reason(block, wall_s=wall_s)))
    for block in unmatched:
        name = f"{RESERVATION_PREFIX}{block.start_wall_s:.0f}"
        while name in names:
            name += "b"
        names.add(name)
        start_wall_s = block.start_wall_s if block.start_wall_s > wall_s else math.floor(wall_s) + 1.0
        reservation = LicenseReservation(name, start_wall_s, block.end_wall_s, {config.license_name: block.watts})
        if reservation.end_wall_s > reservation.start_wall_s:
            actions.append(ReservationAction("create", reservation, _reason(block, wall_s=wall_s)))
    reason = "the envelope no longer asks for it"
    return [*actions, *(ReservationAction("delete", reservation, reason) for reservation in left)]


def _reserved_slots(room: Room, *, wall_s: float, config: RelocationConfig) -> list[Block]:
    step, total = config.reservation_step_watts, config.license_total_watts
    blocks = []
    for start, end, envelope, available in zip(
        room.start_wall_s.tolist(),
        room.end_wall_s.tolist(),
        room.envelope_watts.tolist(),
        room.available_watts.tolist(),
        strict=True,
    ):
        watts = min(total, math.ceil((total - available) / step - 1e-9) * step)
        if watts > 0 and start < wall_s + config.reservation_horizon_s:
            blocks.append(Block(start, end, watts, watts, envelope))
    return blocks


def _joined(a: Block, b: Block) -> Block:
    return Block(
        a.start_wall_s,
        b.end_wall_s,
        max(a.watts, b.watts),
        min(a.lowest_watts, b.lowest_watts),
        min(a.envelope_watts, b.envelope_watts),
    )


def _at_most(blocks: list[Block], count: int) -> list[Block]:
    """Join the neighbours that waste least until no more than `count` are left."""
    kept = list(blocks)
    while len(kept) > count:
        wastes = [_waste(a, b) for a, b in pairwise(kept)]
        index = wastes.index(min(wastes))
        kept[index : index + 2] = [_joined(kept[index], kept[index + 1])]
    return kept


def _waste(a: Block, b: Block) -> float:
    """Watt-seconds that joining reserves needlessly."""
    whole = max(a.watts, b.watts) * (b.end_wall_s - a.start_wall_s)
    parts = sum(block.watts * (block.end_wall_s - block.start_wall_s) for block in (a, b))
    return whole - parts


def _paired(
    blocks: Sequence[Block], ours: Sequence[LicenseReservation], *, wall_s: float
) -> tuple[list[tuple[Block, LicenseReservation]], list[LicenseReservation], list[Block]]:
    """(block, the reservation that becomes it), reservations left over, blocks without one.

    Equal starts first, then what overlaps most. One that has started can only become the block of now.
    """
    left, unmatched = list(ours), list(blocks)
    pairs: list[tuple[Block, LicenseReservation]] = []
    candidates = sorted(
        ((_fit(block, found, wall_s), i, j) for i, block in enumerate(blocks) for j, found in enumerate(ours)),
        reverse=True,
    )
    for fit, i, j in candidates:
        if fit > 0 and blocks[i] in unmatched and ours[j] in left:
            pairs.append((blocks[i], ours[j]))
            unmatched.remove(blocks[i])
            left.remove(ours[j])
    pairs.sort(key=lambda pair: pair[0].start_wall_s)
    return pairs, left, unmatched


def _fit(block: Block, found: LicenseReservation, wall_s: float) -> float:
    now, started = block.start_wall_s <= wall_s, found.start_wall_s <= wall_s + _SAME_S
    if started != now:
        return 0.0
    same_start = abs(found.start_wall_s - block.start_wall_s) < _SAME_S
    overlap_s = min(block.end_wall_s, found.end_wall_s) - max(block.start_wall_s, found.start_wall_s, wall_s)
    return max(0.0, overlap_s) + (1e12 if same_start and not now else 0.0)


def _changed(
    block: Block, found: LicenseReservation, *, wall_s: float, config: RelocationConfig
) -> LicenseReservation | None:
    """`found` as it should be, or None if it may stay. A started one keeps its start."""
    held = found.licenses.get(config.license_name, 0)
    started = found.start_wall_s <= wall_s + _SAME_S
    start_stays = started or abs(found.start_wall_s - block.start_wall_s) < _SAME_S
    end_stays = abs(found.end_wall_s - block.end_wall_s) < _SAME_S
    enough = block.watts <= held <= block.watts + config.reservation_hysteresis_watts
    if start_stays and end_stays and enough:
        return None
    return replace(
        found,
        start_wall_s=found.start_wall_s if start_stays else block.start_wall_s,
        end_wall_s=found.end_wall_s if end_stays else block.end_wall_s,
        licenses={config.license_name: block.watts},
    )


def _reason(block: Block, *, wall_s: float) -> str:
    span = when(block.start_wall_s, block.end_wall_s, wall_s=wall_s)
    return f"{span}: the envelope is {kilowatts(block.envelope_watts)}; {kilowatts(block.watts)} of licences set aside"
