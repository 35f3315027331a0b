"""The battery behind its PCS. Power is never signed."""

from __future__ import annotations

from typing import Protocol

from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.monitoring.readings import EssReading


class Ess(Protocol):
    def read(self) -> EssReading:
        """Raise Unavailable when the PCS does not answer."""
        ...

    def command(self, setpoint: EssSetpoint, *, revert_s: float) -> None:
        """Send one setpoint that the PCS itself drops to zero `revert_s` after the last command.
        Raise DeviceRefused in local mode or outside its ratings, Unavailable when it does not answer."""
        ...

    def close(self) -> None: ...
