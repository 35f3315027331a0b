"""A battery behind its PCS, in memory: the simulated site's physics without its wires."""

from __future__ import annotations

import math

from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.readings import EssReading
from slurm_power.ports.clock import Clock
from slurm_power.testing.simulated_site.battery import Battery, BatteryConfig
from slurm_power.testing.simulated_site.pcs import Pcs, PcsConfig

RAMP_AT_ONCE = 10_000  # percent each second


class FakeEss:
    """Turn `answers` off and it is unreachable; its dead-man timer goes on all the same."""

    def __init__(self, *, clock: Clock, battery: BatteryConfig, pcs: PcsConfig | None = None) -> None:
        most_watts = max(battery.max_charge_watts, battery.max_discharge_watts)
        config = pcs or PcsConfig(max_watts=most_watts, ramp_percent_per_s=RAMP_AT_ONCE)
        self._clock = clock
        self._moved_at_s = clock.now_s()
        self.pcs = Pcs(config, Battery(battery))
        self.answers = True
        self.commands: list[EssSetpoint] = []

    def read(self) -> EssReading:
        self._meet()
        pcs, battery = self.pcs, self.pcs.battery
        return EssReading(
            stored_fraction=battery.stored_fraction,
            health_fraction=battery.config.health_fraction,
            capacity_joules=battery.capacity_joules,
            max_charge_watts=battery.config.max_charge_watts,
            max_discharge_watts=battery.config.max_discharge_watts,
            charge_watts=pcs.charge_watts,
            discharge_watts=pcs.discharge_watts,
            remote_allowed=not pcs.local,
            alarms=tuple(sorted(pcs.alarms)),
            taken_at_s=self._clock.now_s(),
            available_joules=battery.stored_joules,
        )

    def command(self, setpoint: EssSetpoint, *, revert_s: float) -> None:
        self._meet()
        limits = self.pcs.battery.config
        if self.pcs.local:
            raise DeviceRefused("fake PCS: is in local mode")
        if setpoint.charge_watts > limits.max_charge_watts or setpoint.discharge_watts > limits.max_discharge_watts:
            raise DeviceRefused(f"fake PCS: {setpoint} is outside its ratings")
        self.pcs.set_watts = setpoint.discharge_watts - setpoint.charge_watts
        self.pcs.enabled = self.pcs.revert_enabled = True
        self.pcs.revert_after_s = math.ceil(revert_s)
        self.pcs.restart_revert_timer()
        self.commands.append(setpoint)

    def close(self) -> None:
        pass

    def _meet(self) -> None:
        if not self.answers:
            raise Unavailable("fake PCS: does not answer")
        now_s = self._clock.now_s()
        self.pcs.advance(now_s - self._moved_at_s)
        self._moved_at_s = now_s
