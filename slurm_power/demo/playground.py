"""`slurm-power cluster up` with power management: site, agents and controller beside the development cluster.

The same parts as in the demo, for trying things by hand: the simulated day lasts half an hour and repeats nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import open_store
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.demo.history import earlier_points
from slurm_power.demo.load_day import profile_of
from slurm_power.demo.services import Services
from slurm_power.demo.settings import DemoSettings
from slurm_power.demo.site_files import controller_toml, simulated_site_toml
from slurm_power.site_config import read_site_config
from slurm_power.testing.cluster.dev_cluster import DevCluster
from slurm_power.testing.cluster.ports import free_ports

DAY_S = 1800.0


@dataclass(frozen=True, slots=True)
class Playground:
    cluster: DevCluster

    @property
    def config_file(self) -> Path:
        return self.cluster.layout.etc / "slurm-power.toml"

    def start(self) -> None:
        """Start what does not run of site, agents and controller. Raise Unavailable when one does not start."""
        services = Services(self.cluster, self.cluster.layout.run, logs=self.cluster.layout.log)
        settings = self._settings()
        site_file = self.cluster.layout.etc / "site.toml"
        running = self.cluster.services.is_running
        if not running("site") or not self.config_file.exists():
            for name in ("powerd", *(f"agent-{node}" for node in self.cluster.node_names()), "site"):
                self.cluster.services.stop(name)
            self._write(services, settings, site_file)
        services.start_agents(self.config_file)
        services.start_controller(self.config_file)

    def _settings(self) -> DemoSettings:
        wanted = self.cluster.settings
        return DemoSettings(
            directory=self.cluster.directory,
            day_s=DAY_S,
            nodes=wanted.node_count,
            gpus_per_node=wanted.gpus_per_node,
            node_base_watts=wanted.node_base_watts,
        )

    def _write(self, services: Services, settings: DemoSettings, site_file: Path) -> None:
        cluster, store_file = self.cluster, self.cluster.layout.store / "telemetry.db"
        start_wall_s = time.time() // settings.slot_s * settings.slot_s
        site_file.write_text(
            simulated_site_toml(
                settings,
                start_wall_s=start_wall_s,
                node_state_files=[str(cluster.gpu_state(name)) for name in cluster.node_names()],
                load_day=1,
                directory=cluster.layout.run,
            )
        )
        bus_port = services.start_site(site_file)
        self.config_file.write_text(
            controller_toml(
                settings,
                mode="manage",
                start_wall_s=start_wall_s,
                bus_port=bus_port,
                listen_port=free_ports(1)[0],
                munge_socket=cluster.layout.munge_socket,
                node_directories=cluster.directory / "nodes",
                directory=cluster.layout.run,
                store={"kind": "sqlite", "path": store_file},
            )
        )
        store = open_store(read_site_config(self.config_file, only={"store"}).table(StoreConfig))
        profile = profile_of(settings, day=1, lines=None)
        store.write(earlier_points(settings, profile, start_wall_s=start_wall_s, until_wall_s=time.time()))
        store.flush(10.0)
        store.close()

    def advice(self) -> list[str]:
        own = read_site_config(self.config_file, only={"controller"}).table(ControllerConfig)
        return [
            f"export SLURM_POWER_CONFIG={self.config_file}",
            f"# the dashboard: http://{own.listen_host}:{own.listen_port}/",
        ]
