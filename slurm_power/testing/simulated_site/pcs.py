"""The power conversion system: setpoint, dead-man timer, ramp, local mode, alarms. Pure; time is handed in.

Inside this file power follows SunSpec models 701 and 704: positive is discharging (generation), negative charging.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from slurm_power.errors import require
from slurm_power.testing.simulated_site.battery import Battery

SUBSTEP_S = 0.25
TRIPPING_ALARMS = frozenset({"GROUND_FAULT", "DC_DISCONNECT", "AC_DISCONNECT", "GRID_DISCONNECT", "MANUAL_SHUTDOWN"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PcsConfig:
    """The `[pcs]` table."""

    max_watts: float
    """Nameplate of the converter, both ways (702 WMaxRtg); percent setpoints refer to it."""

    ramp_percent_per_s: int = 50
    """704 WRmp: how fast the output moves, in percent of `max_watts` each second."""

    setpoint_modes: str = "both"
    """"both", "watts" or "percent": which of WSet and WSetPct this device implements."""

    def __post_init__(self) -> None:
        require(self.max_watts > 0, "max_watts", self.max_watts, "must be above 0")
        require(self.ramp_percent_per_s >= 1, "ramp_percent_per_s", self.ramp_percent_per_s, "must be at least 1")
        known = self.setpoint_modes in ("both", "watts", "percent")
        require(known, "setpoint_modes", self.setpoint_modes, 'must be "both", "watts" or "percent"')


class SetpointMode(enum.IntEnum):
    """704 WSetMod."""

    W_MAX_PCT = 0
    WATTS = 1


class Operation(enum.IntEnum):
    """715 OpCtl."""

    STOP = 0
    START = 1
    ENTER_STANDBY = 2
    EXIT_STANDBY = 3


class Pcs:
    def __init__(self, config: PcsConfig, battery: Battery) -> None:
        self.config = config
        self.battery = battery
        self.enabled = False
        self.mode = SetpointMode.WATTS if config.setpoint_modes != "percent" else SetpointMode.W_MAX_PCT
        self.set_watts = 0.0
        self.set_percent = 0.0
        self.revert_enabled = False
        self.revert_watts = 0.0
        self.revert_percent = 0.0
        self.revert_after_s = 0
        self.revert_left_s: float | None = None
        self.ramp_percent_per_s = config.ramp_percent_per_s
        self.local = False
        self.operation = Operation.START
        self.alarms: set[str] = set()
        self.output_watts = 0.0  # what the ramp has reached
        self.charge_watts = 0.0  # at the terminals now
        self.discharge_watts = 0.0
        self.charged_joules = 0.0
        self.discharged_joules = 0.0
        self.reverts = 0
        self.age_s = 0.0

    def restart_revert_timer(self) -> None:
        """Called after every write to the setpoint's points; a time of 0 means no dead-man."""
        armed = self.enabled and self.revert_after_s > 0
        self.revert_left_s = float(self.revert_after_s) if armed else None

    def reset_alarms(self) -> None:
        self.alarms.clear()

    @property
    def tripped(self) -> bool:
        return bool(self.alarms & TRIPPING_ALARMS)

    def wanted_watts(self) -> float:
        """The setpoint in force; 0 while disabled, stopped or tripped."""
        running = self.operation in (Operation.START, Operation.EXIT_STANDBY)
        if not self.enabled or not running or self.tripped:
            return 0.0
        in_watts = self.mode is SetpointMode.WATTS
        watts = self.set_watts if in_watts else self.set_percent / 100.0 * self.config.max_watts
        limits = self.battery.config
        return max(-min(limits.max_charge_watts, self.config.max_watts),
                   min(watts, limits.max_discharge_watts, self.config.max_watts))  # fmt: skip

    def advance(self, duration_s: float) -> None:
        """Let time pass. Long gaps are cut so that the timer and the ramp act when they would have."""
        left_s = duration_s
        while left_s > 1e-9:
            step_s = min(left_s, SUBSTEP_S, self.revert_left_s if self.revert_left_s else SUBSTEP_S)
            self._step(step_s)
            left_s -= step_s

    def _step(self, step_s: float) -> None:
        self._ramp(step_s)
        self._exchange(step_s)
        self._count_down(step_s)
        self.age_s += step_s

    def _ramp(self, step_s: float) -> None:
        if self.tripped:
            self.output_watts = 0.0  # a breaker does not ramp
            return
        reach_watts = self.ramp_percent_per_s / 100.0 * self.config.max_watts * step_s
        gap_watts = self.wanted_watts() - self.output_watts
        self.output_watts += max(-reach_watts, min(gap_watts, reach_watts))

    def _exchange(self, step_s: float) -> None:
        battery = self.battery
        self.charge_watts = battery.charge(max(0.0, -self.output_watts), duration_s=step_s)
        self.discharge_watts = battery.discharge(max(0.0, self.output_watts), duration_s=step_s)
        battery.rest(duration_s=step_s)
        self.charged_joules += self.charge_watts * step_s
        self.discharged_joules += self.discharge_watts * step_s

    def _count_down(self, step_s: float) -> None:
        if self.revert_left_s is None:
            return
        self.revert_left_s -= step_s
        if self.revert_left_s <= 1e-9:
            self.revert_left_s = None
            self.enabled = self.revert_enabled
            self.set_watts, self.set_percent = self.revert_watts, self.revert_percent
            self.reverts += 1
