"""What the SPANK plugin adds to `srun true`: two equal clusters, one without the plugin, launched in turns.

Launches end on steps of about 50 ms, for Slurm waits in such steps. A plugin's few milliseconds therefore vanish in
most launches and cost a whole step in some: the median of the differences shows the first, only the mean the second.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from pathlib import Path

from rich.progress import track

from slurm_power.testing.cluster.dev_cluster import DevCluster
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.processes import wait_for

PAIRS = 150  # with 40 the median was seen to flip by a whole step from run to run
ONE_NODE = ClusterSettings(node_count=1, gpus_per_node=4)


def measure(directory: Path) -> float:
    """Median over pairs of (with the plugin and an agent that answers) - (without), in seconds."""
    plain, with_plugin = DevCluster(directory / "plain", ONE_NODE), DevCluster(directory / "plugin", ONE_NODE)
    try:
        plain.up(fresh=True)
        (plain.layout.etc / "plugstack.conf").write_text("# no plugin\n")
        plain.restart_nodes()
        with_plugin.up(fresh=True)
        _start_agent(with_plugin)
        for cluster in (plain, with_plugin):
            _launch_s(cluster)
        differences_s = []
        for pair in track(range(PAIRS), description="srun true, in pairs"):
            order = (plain, with_plugin) if pair % 2 == 0 else (with_plugin, plain)
            took_s = {cluster.directory: _launch_s(cluster) for cluster in order}
            differences_s.append(took_s[with_plugin.directory] - took_s[plain.directory])
        _print(differences_s)
        return statistics.median(differences_s)
    finally:
        with_plugin.down()
        plain.down()


def _print(differences_s: list[float]) -> None:
    error_s = statistics.stdev(differences_s) / math.sqrt(len(differences_s))
    print(
        f"added to srun true, {len(differences_s)} pairs: median {1e3 * statistics.median(differences_s):.1f} ms, "
        f"mean {1e3 * statistics.mean(differences_s):.1f} ms (standard error {1e3 * error_s:.1f} ms)"
    )


def _launch_s(cluster: DevCluster) -> float:
    environment = cluster.environment()
    started_s = time.perf_counter()
    subprocess.run(["srun", "--gpus=1", "true"], env=environment, cwd=cluster.layout.jobs, check=True, timeout=60)
    return time.perf_counter() - started_s


def _start_agent(cluster: DevCluster) -> None:
    node_name = cluster.node_names()[0]
    config_file = cluster.layout.etc / "slurm-power.toml"
    config_file.write_text(
        f"""[agent]
safe_cap_watts = 400.0
node_base_watts = 500.0
socket = "{cluster.agent_socket(node_name)}"
journal = "{cluster.node_directory(node_name) / "journal.json"}"
[store]
kind = "sqlite"
path = "{cluster.layout.store / "telemetry.db"}"
"""
    )
    environment = {**cluster.environment(), "SLURM_POWER_EMULATED_NODE": str(cluster.gpu_state(node_name))}
    argv = ["slurm-power-agent", "--config", str(config_file), "--node", node_name]
    cluster.services.start("agent", argv, log=cluster.layout.log / "agent.log", env=environment)
    wait_for(cluster.agent_socket(node_name).exists, timeout_s=20.0)
