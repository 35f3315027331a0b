"""Node agents on a development cluster, as `slurm-power cluster up` starts them but without a controller."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT
from slurm_power.testing.processes import wait_for

TIMEOUT_S = 60.0


def start_agent(cluster: DevCluster, node: str) -> None:
    folder = cluster.node_directory(node)
    config = folder / "agent.toml"
    config.write_text(
        f"[agent]\nsafe_cap_watts = 400\nsample_period_s = 0.2\n"
        f'socket = "{folder}/agent.sock"\njournal = "{folder}/journal"\n'
    )
    argv = [sys.executable, "-m", "slurm_power.cli.agent", "--config", str(config), "--node", node]
    environment = cluster.environment() | {ENVIRONMENT: str(cluster.gpu_state(node))}
    cluster.services.start(f"agent-{node}", argv, log=folder / "agent.log", env=environment)


@contextmanager
def agents_on(cluster: DevCluster, nodes: Sequence[str]) -> Iterator[None]:
    for node in nodes:
        start_agent(cluster, node)
    try:
        for node in nodes:
            assert wait_for(cluster.agent_socket(node).exists, timeout_s=TIMEOUT_S)
        yield
    finally:
        cluster.cancel_everything()
        for node in nodes:
            cluster.services.stop(f"agent-{node}")
            (cluster.node_directory(node) / "journal").unlink(missing_ok=True)
