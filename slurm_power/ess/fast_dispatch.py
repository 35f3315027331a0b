"""Every few seconds: the battery setpoint that keeps the open metering interval at or under the target.

The plan gives the target and says when to charge; the live meter says what is needed now. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from slurm_power.ess.battery import BatteryLimits, usable_charge_watts, usable_discharge_watts
from slurm_power.ess.plan import PlanSlot
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.metering import MeteringInterval
from slurm_power.monitoring.readings import EssReading, GridReading
from slurm_power.monitoring.site_balance import site_load_watts

AT_TARGET_FRACTION = 0.95
"""A planned import above this share of the target (the planner leaves some headroom below it) means: the
planned discharge is there for the peak, and is spent only if the peak comes."""


@dataclass(frozen=True, slots=True)
class FastDecision:
    setpoint: EssSetpoint
    reason: str
    allowed_watts: float | None  # mean import that the rest of the interval may have
    shortfall_watts: float = 0.0  # of needed discharge that the battery cannot give


def allowed_import_watts(
    interval: MeteringInterval, *, target_watts: float, load_watts: float, wall_s: float, min_remaining_s: float
) -> float:
    """Mean import over the rest of the interval that ends it exactly at the target.

    What is unknown of the interval counts as if the present load had been drawn, or the target if that is more.
    """
    unknown_joules = interval.unknown_s(wall_s) * max(load_watts, target_watts)
    left_joules = target_watts * interval.length_s - interval.joules - unknown_joules
    return left_joules / max(min_remaining_s, interval.remaining_s(wall_s))


def next_setpoint(
    slot: PlanSlot | None,
    *,
    target_watts: float,
    interval: MeteringInterval,
    grid: GridReading,
    ess: EssReading,
    battery: BatteryLimits,
    wall_s: float,
    command_s: float,
) -> FastDecision:
    """What the battery should do until the next command, `command_s` from now.

    The readings must be fresh (the guard checks again). Without a plan slot the target is still defended.
    """
    load_watts = max(0.0, site_load_watts(grid, ess=ess) or 0.0)
    allowed_watts = allowed_import_watts(
        interval, target_watts=target_watts, load_watts=load_watts, wall_s=wall_s, min_remaining_s=command_s
    )
    stored_joules = ess.stored_fraction * ess.capacity_joules
    can_give_watts = min(
        load_watts,
        ess.max_discharge_watts,
        usable_discharge_watts(battery, stored_joules=stored_joules, duration_s=command_s),
    )
    needed_watts = max(0.0, load_watts - max(0.0, allowed_watts))
    planned_watts = _planned_for_price_watts(slot, target_watts)
    if needed_watts > 0 and needed_watts >= planned_watts:
        given_watts = min(needed_watts, can_give_watts)
        reason = f"load {load_watts:.0f} W, the interval allows {max(0.0, allowed_watts):.0f} W: discharge"
        return FastDecision(EssSetpoint(discharge_watts=given_watts), reason, allowed_watts, needed_watts - given_watts)
    if planned_watts > 0:
        given_watts = min(planned_watts, can_give_watts)
        return FastDecision(EssSetpoint(discharge_watts=given_watts), "discharge as planned", allowed_watts)
    reach_watts = target_watts if slot is None or slot.charge_limit_watts is None else slot.charge_limit_watts
    room_watts = min(allowed_watts, target_watts, reach_watts) - load_watts
    wanted_watts = slot.charge_watts if slot is not None else 0.0
    can_take_watts = min(
        ess.max_charge_watts, usable_charge_watts(battery, stored_joules=stored_joules, duration_s=command_s)
    )
    charge_watts = max(0.0, min(wanted_watts, room_watts, can_take_watts))
    if charge_watts > 0:
        return FastDecision(EssSetpoint(charge_watts=charge_watts), "charge as planned", allowed_watts)
    reason = "stand by: charging would lift the interval above the target" if wanted_watts > 0 else "stand by"
    return FastDecision(EssSetpoint(), reason, allowed_watts)


def _planned_for_price_watts(slot: PlanSlot | None, target_watts: float) -> float:
    """Planned discharge that is worth it at this price even if the load stays under the target."""
    if slot is None or slot.grid_import_watts >= AT_TARGET_FRACTION * target_watts:
        return 0.0
    return slot.discharge_watts
