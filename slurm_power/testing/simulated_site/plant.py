"""The site's physics in one place: building + nodes x PUE - battery = what the grid connection carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slurm_power.ports.clock import Clock
from slurm_power.testing.simulated_site.meter_device import MeterDevice
from slurm_power.testing.simulated_site.pcs import Pcs
from slurm_power.testing.simulated_site.pcs_device import PcsDevice
from slurm_power.testing.simulated_site.profile import LoadProfile

SHORTEST_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Truth:
    """One moment of the site as it really is, not as a meter or controller sees it."""

    wall_s: float
    grid_import_watts: float
    grid_export_watts: float
    inflexible_watts: float
    it_watts: float  # at the nodes, before PUE
    cooling_watts: float  # what PUE adds
    battery_charge_watts: float
    battery_discharge_watts: float
    stored_joules: float


class Plant:
    """All devices of the site, moved on together. One thread only."""

    def __init__(
        self,
        *,
        clock: Clock,
        pcs: Pcs,
        profile: LoadProfile,
        it_watts: Callable[[], float],
        pue: float,
        start_wall_s: float,
        import_is_positive: bool = True,
    ) -> None:
        self._clock = clock
        self._profile = profile
        self._it_watts = it_watts
        self._pue = pue
        self._start_wall_s = start_wall_s
        self._moved_at_s = clock.now_s()
        self.extra_building_watts = 0.0
        self.pcs = PcsDevice(pcs)
        largest_watts = 2.0 * float(profile.watts.max()) + 4.0 * pcs.config.max_watts
        self.grid_meter = MeterDevice(
            serial="SIM-GRID-1", largest_watts=largest_watts, import_is_positive=import_is_positive
        )
        self.building_meter = MeterDevice(serial="SIM-BUILDING-1", largest_watts=largest_watts)
        self.truth = self._measure(0.0)

    def advance(self) -> Truth:
        """Move everything to the clock's now; too small a step changes nothing."""
        now_s = self._clock.now_s()
        duration_s = now_s - self._moved_at_s
        if duration_s >= SHORTEST_STEP_S:
            self._moved_at_s = now_s
            self.pcs.pcs.advance(duration_s)
            self.pcs.refresh()
            self.truth = self._measure(duration_s)
        return self.truth

    def refresh(self) -> None:
        """Bring the registers up to date after a device was changed from outside, without letting time pass."""
        self.pcs.refresh()
        self.truth = self._measure(0.0)

    def _measure(self, duration_s: float) -> Truth:
        wall_s = self._clock.wall_s()
        pcs = self.pcs.pcs
        building_watts = self._profile.watts_at(wall_s - self._start_wall_s) + self.extra_building_watts
        it_watts = self._it_watts()
        cooling_watts = it_watts * (self._pue - 1.0)
        net_watts = building_watts + it_watts + cooling_watts + pcs.charge_watts - pcs.discharge_watts
        self.grid_meter.measure(net_watts, duration_s)
        self.building_meter.measure(building_watts, duration_s)
        return Truth(
            wall_s=wall_s,
            grid_import_watts=max(0.0, net_watts),
            grid_export_watts=max(0.0, -net_watts),
            inflexible_watts=building_watts,
            it_watts=it_watts,
            cooling_watts=cooling_watts,
            battery_charge_watts=pcs.charge_watts,
            battery_discharge_watts=pcs.discharge_watts,
            stored_joules=pcs.battery.stored_joules,
        )
