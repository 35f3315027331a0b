"""The whole system on one real Slurm cluster: simulated site, agents and controller as their own processes."""

from __future__ import annotations

import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from slurm_power.adapters.slurm_command import CommandSlurmClient
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.demo.services import Services
from slurm_power.demo.settings import DemoSettings
from slurm_power.demo.site_files import controller_toml, simulated_site_toml, to_toml
from slurm_power.relocation.jobs import Job
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.cluster.fixtures import dev_cluster, slurm
from slurm_power.testing.cluster.ports import free_ports
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode
from slurm_power.testing.processes import wait_for
from slurm_power.testing.simulated_site.control import SiteControl

__all__ = ["dev_cluster", "slurm"]

_HERE = Path(__file__).parent

TARGET_WATTS = 17_000.0
SLOT_S, TICK_S, FAST_S = 4.0, 1.0, 0.5

# A building of 8 kW and idle nodes (3.9 kW with cooling) stay below the target, also with a few jobs. No price ever
# moves the battery: what moves here moves because of the peak that a test makes.
OVERRIDES: dict[str, dict[str, Any]] = {
    "tariff": {"energy_prices": [{"start_s": 0.0, "price_per_kwh": 100.0}]},
    "planner": {"target_watts": TARGET_WATTS, "target_floor_watts": TARGET_WATTS},
    "forecast": {"period_s": 3600.0, "stated_band_fraction": 0.02},
    "relocation": {"reservation_horizon_s": 20.0},
    "pcs": {"revert_s": 4.0},
    "agent": {"report_period_s": 0.5, "telemetry_flush_s": 0.5, "presence_period_s": 1.0, "absent_grace_s": 5.0},
    "controller": {"tick_period_s": TICK_S, "fast_period_s": FAST_S, "lease_s": 6.0},
    "slurm": {"timeout_s": 5.0},
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.xdist_group("scenarios"))


class ScenarioSite:
    """One site with its controller, and a hand on every process and device of it."""

    def __init__(self, cluster: DevCluster, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.cluster, self.directory = cluster, directory
        self.services = Services(cluster, directory)
        self.control = SiteControl(directory / "site.sock")
        self.config_file, self.site_file = directory / "slurm-power.toml", directory / "site.toml"
        self.usual_store = {"kind": "sqlite", "path": directory / "telemetry.db", "flush_period_s": FAST_S}
        self.store: dict[str, Any] = self.usual_store
        self.bus_port, self.listen_port, self.metrics_port = (free_ports(1)[0] for _ in range(3))
        self.url = f"http://127.0.0.1:{self.listen_port}"
        self._settings = DemoSettings(
            directory=directory,
            day_s=24 * SLOT_S,
            slots_per_day=24,
            building_mean_watts=8_000.0,
            building_peak_watts=8_010.0,
            battery_hours=96.0,
        )
        self.write_site()
        self.write_config()

    def write_site(self) -> None:
        nodes = [str(self.cluster.gpu_state(name)) for name in self.cluster.node_names()]
        text = simulated_site_toml(
            self._settings, start_wall_s=time.time(), node_state_files=nodes, load_day=1, directory=self.directory
        )
        tables = tomllib.loads(text)
        tables["site"]["port"] = self.bus_port  # the same after a restart
        self.site_file.write_text(to_toml(tables))

    def write_config(self, **overrides: dict[str, Any]) -> Path:
        """For the processes that start from now on; the next test has the usual one again."""
        self.is_usual = not overrides
        self.config_file.write_text(self.config_text(**overrides))
        return self.config_file

    def config_text(self, **overrides: dict[str, Any]) -> str:
        text = controller_toml(
            self._settings,
            mode="manage",
            start_wall_s=time.time(),
            bus_port=self.bus_port,
            listen_port=self.listen_port,
            munge_socket=self.cluster.layout.munge_socket,
            node_directories=self.cluster.directory / "nodes",
            directory=self.directory,
            store=self.store,
        )
        tables = tomllib.loads(text)
        for changes in (OVERRIDES, overrides):
            for table, values in changes.items():
                tables.setdefault(table, {}).update(values)
        return to_toml(tables)

    # -- processes

    def start(self) -> None:
        """Whatever does not run; then wait until the controller plans with all it needs."""
        if not self.runs("site"):
            self.services.start_site(self.site_file)
        self.services.start_agents(self.config_file)
        self.services.start_controller(self.config_file)
        self.wait_status(lambda s: s["target_watts"] is not None and not s["failures"] and s["ticks"] > 1)

    def kill(self, name: str) -> None:
        self.cluster.services.signal(name, signal.SIGKILL)
        assert self.cluster.services.wait_until_gone(name, timeout_s=5.0)

    def runs(self, name: str) -> bool:
        return self.cluster.services.is_running(name)

    def log(self, name: str) -> str:
        return self.services.log(name).read_text()

    # -- what it says

    def api(self, what: str) -> Any:
        return httpx.get(f"{self.url}/api/{what}", timeout=5.0, trust_env=False).json()

    def wait_status(self, condition: Callable[[dict[str, Any]], bool], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """The first status for which it holds."""
        last: dict[str, Any] = {}

        def holds() -> bool:
            nonlocal last
            try:
                last = self.api("status")
            except httpx.TransportError:
                return False
            return condition(last)

        assert wait_for(holds, timeout_s=timeout_s, poll_s=0.1), f"{last}\n{self.log('powerd')[-3000:]}"
        return last

    # -- what is true

    def job(self, job_id: int) -> Job:
        client = CommandSlurmClient(SlurmConfig(slurm_conf=self.cluster.layout.slurm_conf))
        return next(job for job in client.jobs() if job.job_id == job_id)

    def caps(self, node_name: str) -> list[float]:
        """Of its GPUs, in the order of their minor numbers, as the (emulated) boards have them."""
        with EmulatedNode.open(self.cluster.gpu_state(node_name)) as node:
            return [node.gpu_cap_watts(node.uuid_of_minor(minor)) for minor in range(len(node.gpu_uuids()))]

    def make_peak(self, *, extra_watts: float = 7_500.0) -> None:
        self.control.do("add-building-load", watts=extra_watts)

    def our_reservations(self) -> list[str]:
        return [name for name in self.cluster.reservation_names() if name.startswith("slurm_power_")]


@pytest.fixture(scope="session")
def started_site(dev_cluster: DevCluster) -> Iterator[ScenarioSite]:
    site = ScenarioSite(dev_cluster, dev_cluster.directory / "scenarios")
    try:
        yield site
    finally:
        site.services.stop()


@pytest.fixture
def site(started_site: ScenarioSite, slurm: DevCluster) -> Iterator[ScenarioSite]:
    """The session's site: all its processes run, no peak, no job, no reservation of others."""
    started_site.start()
    yield started_site
    slurm.cancel_everything()
    if not started_site.is_usual:
        started_site.services.stop()
        started_site.store = started_site.usual_store
        started_site.write_config()
    elif started_site.runs("site"):
        started_site.make_peak(extra_watts=0.0)
