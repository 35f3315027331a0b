"""The running site: physics, bus, truth log and control socket in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from slurm_power.ports.clock import Clock
from slurm_power.testing.simulated_site.battery import Battery
from slurm_power.testing.simulated_site.config import SimulatedSiteConfig
from slurm_power.testing.simulated_site.control import serve_control
from slurm_power.testing.simulated_site.modbus_server import BusDevice, ModbusBus
from slurm_power.testing.simulated_site.pcs import Pcs
from slurm_power.testing.simulated_site.plant import Plant, Truth
from slurm_power.testing.simulated_site.profile import load_profile
from slurm_power.testing.simulated_site.truth_log import TruthLog


class SimulatedSite:
    def __init__(
        self,
        config: SimulatedSiteConfig,
        *,
        clock: Clock,
        it_watts: Callable[[], float],
        csv_lines: Iterable[str] | None = None,
    ) -> None:
        site = config.site
        self._config = site
        self.start_wall_s = clock.wall_s() if site.start_wall_s is None else site.start_wall_s
        self.plant = Plant(
            clock=clock,
            pcs=Pcs(config.pcs, Battery(config.battery)),
            profile=load_profile(config.load, csv_lines),
            it_watts=it_watts,
            pue=site.pue,
            start_wall_s=self.start_wall_s,
            import_is_positive=site.meter_import_is_positive,
        )
        devices: dict[int, BusDevice] = {site.pcs_unit: self.plant.pcs, site.grid_meter_unit: self.plant.grid_meter}
        if site.building_meter_unit is not None:
            devices[site.building_meter_unit] = self.plant.building_meter
        self.bus = ModbusBus(devices, before_request=self.plant.advance)

    def resume(self, last: Truth) -> None:
        """Go on with the energy the battery held when an earlier process of this site ended."""
        self.plant.pcs.pcs.battery.stored_joules = last.stored_joules
        self.plant.refresh()

    async def start(self) -> int:
        """Serve Modbus; the port in use."""
        return await self.bus.start(self._config.host, self._config.port)

    async def stop(self) -> None:
        await self.bus.stop()

    async def run_until(self, ended: asyncio.Event) -> None:
        """Move the physics on, write the truth and listen to the control socket until `ended`."""
        log = None if self._config.truth_log is None else TruthLog(Path(self._config.truth_log))
        control = await serve_control(self, self._config.control_socket)
        try:
            while not ended.is_set():
                truth = self.plant.advance()
                if log is not None:
                    log.write(truth)
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), self._config.step_s)
        finally:
            if control is not None:
                control.close()
                Path(str(self._config.control_socket)).unlink(missing_ok=True)
            if log is not None:
                log.close()
