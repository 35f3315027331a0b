"""Energy counters of this node's CPUs and memory."""

from __future__ import annotations

from typing import Protocol

from slurm_power.monitoring.energy_counters import EnergyReading


class EnergyCounters(Protocol):
    def read(self) -> EnergyReading:
        """Raise Unavailable where there are none, or none that we may read."""
        ...
