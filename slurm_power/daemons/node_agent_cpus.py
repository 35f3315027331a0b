"""What the node's CPUs and memory drew since the last look. Only told: the node's plan counts with node_base_watts."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from slurm_power.errors import Unavailable
from slurm_power.monitoring.energy_counters import EnergyReading, watts_between
from slurm_power.ports.energy_counters import EnergyCounters

log = logging.getLogger(__name__)

MOST_WATTS = 2000.0
"""No package or memory draws more: a counter that could wrap faster at this between two looks is not trusted."""


@dataclass(frozen=True, slots=True)
class BesideGpus:
    """Joules since the first look. None: not counted, or not known."""

    cpu_joules: float | None
    rest_joules: float | None  # of the node's base, without what the CPUs drew


class CpuWatch:
    def __init__(self, counters: EnergyCounters | None) -> None:
        self._counters = counters
        self._last: EnergyReading | None = None
        self._joules = self._counted_s = 0.0
        self._trouble = ""

    def watts(self) -> float | None:
        """Mean since the last call; None for the first one, and where nothing is counted."""
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        watts = watts_between(before, self._last, most_watts=MOST_WATTS)
        if watts is not None:
            elapsed_s = self._last.taken_at_s - before.taken_at_s
            self._joules += watts * elapsed_s
            self._counted_s += elapsed_s
        return watts

    def used(self, *, base_watts: float | None, elapsed_s: float) -> BesideGpus:
        """Of `elapsed_s` since the agent's start. Where the CPUs are not counted the base is all rest."""
        cpu_joules = self._joules if self._counted_s > 0 else None
        if base_watts is None:
            return BesideGpus(cpu_joules, None)
        return BesideGpus(cpu_joules, max(0.0, base_watts * elapsed_s - (cpu_joules or 0.0)))

    def _read(self) -> EnergyReading | None:
        if self._counters is None:
            return None
        try:
            reading = self._counters.read()
        except Unavailable as failure:
            if str(failure) != self._trouble:
                log.info("CPU power is not measured: %s", failure)
            self._trouble = str(failure)
            return None
        self._trouble = ""
        return reading
