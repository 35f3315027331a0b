"""Starts the site, the node agents and the controller of one run beside a development cluster."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import Unavailable
from slurm_power.testing.cluster.dev_cluster import DevCluster
from slurm_power.testing.processes import wait_for

START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Services:
    """What runs beside Slurm, all under the cluster's supervisor, so that `cluster down` finds it too."""

    cluster: DevCluster
    directory: Path
    logs: Path | None = None  # None: beside everything else in `directory`

    def start_site(self, config_file: Path) -> int:
        """The port of its Modbus bus."""
        ready = self.directory / "site.ready"
        ready.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "slurm_power.testing.simulated_site", "--config", str(config_file)]
        self._start("site", argv)
        self._await("site", ready.exists)
        return int(json.loads(ready.read_text())["port"])

    def start_agents(self, config_file: Path) -> None:
        for node_name in self.cluster.node_names():
            self.start_agent(node_name, config_file)
        for node_name in self.cluster.node_names():
            self._await(f"agent-{node_name}", self.cluster.agent_socket(node_name).exists)

    def start_agent(self, node_name: str, config_file: Path) -> None:
        argv = [str(_program("slurm-power-agent")), "--config", str(config_file), "--node", node_name]
        state_file = str(self.cluster.gpu_state(node_name))
        self._start(f"agent-{node_name}", argv, SLURM_POWER_EMULATED_NODE=state_file)

    def start_controller(self, config_file: Path) -> None:
        self._start("powerd", [str(_program("slurm-powerd")), "--config", str(config_file)])

    def stop(self) -> None:
        """The controller first: it must not see its devices vanish."""
        for name in ("powerd", *(f"agent-{node}" for node in self.cluster.node_names()), "site"):
            self.cluster.services.stop(name, grace_s=15.0)

    def _start(self, name: str, argv: list[str], **extra: str) -> None:
        environment = {**self.cluster.environment(), **extra}
        self.cluster.services.start(name, argv, log=self.log(name), env=environment)

    def log(self, name: str) -> Path:
        return (self.logs or self.directory) / f"{name}.log"

    def _await(self, name: str, ready: object) -> None:
        assert callable(ready)
        running = self.cluster.services.is_running
        wait_for(lambda: ready() or not running(name), timeout_s=START_TIMEOUT_S, poll_s=0.1)
        if not ready():
            tail = "\n".join(self.log(name).read_text(errors="replace").splitlines()[-6:])
            raise Unavailable(f"{name} did not start; end of {self.log(name)}:\n{tail}")


def _program(name: str) -> Path:
    return Path(sys.executable).parent / name
