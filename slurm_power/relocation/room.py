"""Room: how many licensed watts jobs that may be held back can hold in each slot, so that the envelope holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slurm_power.ess.plan import PlanSlot
from slurm_power.relocation.job_power import JobPower, is_waiting
from slurm_power.relocation.jobs import JobState
from slurm_power.relocation.settings import RelocationConfig

Watts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Room:
    """One entry per slot from now on."""

    start_wall_s: Watts
    end_wall_s: Watts
    envelope_watts: Watts
    price_per_kwh: Watts
    available_watts: Watts  # licensed watts for `watts` holders; what already runs included
    limited: NDArray[np.bool_]  # False: the envelope is as large as the whole site

    def overlapping(self, start_wall_s: float, end_wall_s: float | None) -> NDArray[np.bool_]:
        later = self.end_wall_s > start_wall_s
        return later if end_wall_s is None else later & (self.start_wall_s < end_wall_s)


def room_of(
    slots: Sequence[PlanSlot],
    powers: Sequence[JobPower],
    *,
    idle_watts: float,
    free_gpus: float,
    wall_s: float,
    config: RelocationConfig,
) -> Room:
    """Envelope - what firm licences and unoccupied nodes draw, in licensed watts."""
    ahead = [slot for slot in slots if slot.start_wall_s + slot.duration_s > wall_s]
    start = np.array([slot.start_wall_s for slot in ahead], dtype=np.float64)
    end = start + np.array([slot.duration_s for slot in ahead], dtype=np.float64)
    envelope = np.array([slot.envelope_watts for slot in ahead], dtype=np.float64)
    firm = firm_licensed_watts(powers, start, end, free_gpus=free_gpus, wall_s=wall_s, config=config)
    available = (envelope - idle_watts) / config.licensed_draw_fraction - firm
    limited = envelope < config.license_total_watts
    total = float(config.license_total_watts)
    return Room(
        start_wall_s=start,
        end_wall_s=end,
        envelope_watts=envelope,
        price_per_kwh=np.array([slot.price_per_kwh for slot in ahead], dtype=np.float64),
        available_watts=np.where(limited, np.clip(available, 0.0, total), total),
        limited=limited,
    )


def firm_licensed_watts(
    powers: Sequence[JobPower],
    start: Watts,
    end: Watts,
    *,
    free_gpus: float,
    wall_s: float,
    config: RelocationConfig,
) -> Watts:
    """Licensed watts of firm holders per slot: those that run until their limit, and waiting ones as far as
    GPUs are free for them, as if they started now."""
    total = np.zeros(start.size)
    for power in powers:
        if power.license_name != config.firm_license_name and power.touchable:
            continue
        begin_s = wall_s
        if power.job.state is JobState.PENDING:
            if not is_waiting(power) or power.job.gpus > free_gpus:
                continue
            free_gpus -= power.job.gpus
            begin_s = max(wall_s, power.job.begin_wall_s or wall_s)
        end_s = power.end_wall_s(begin_s)
        held = end > begin_s if end_s is None else (end > begin_s) & (start < max(end_s, wall_s + 1.0))
        total += power.licensed_watts * held
    return total
