"""What the battery is told to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EssSetpoint:
    """At most one of the two is above zero; both zero means stand by."""

    charge_watts: float = 0.0
    discharge_watts: float = 0.0

    def __post_init__(self) -> None:
        if self.charge_watts < 0 or self.discharge_watts < 0 or (self.charge_watts and self.discharge_watts):
            raise ValueError(f"not a setpoint: {self}")
