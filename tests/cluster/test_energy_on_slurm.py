"""A job's joules on a real Slurm, told by an agent that was killed meanwhile, against the emulated boards' counters."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slurm_power.adapters.energy_records import EnergyRecords
from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.cli.jobs import jobs
from slurm_power.monitoring.energy_marks import Holder
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode
from slurm_power.testing.processes import wait_for

NODE, SERVICE = "n1", "agent-n1"
TIMEOUT_S = 60.0


class CountingAgent:
    def __init__(self, cluster: DevCluster, config: Path) -> None:
        self.cluster, self.config = cluster, config
        self.folder = cluster.node_directory(NODE)
        self.gpus = EmulatedNode.open(cluster.gpu_state(NODE))
        config.write_text(
            f"[agent]\nsafe_cap_watts = 400\nsample_period_s = 0.2\ntelemetry_flush_s = 0.5\nnode_base_watts = 500\n"
            f'socket = "{self.folder}/agent.sock"\njournal = "{self.folder}/journal"\n'
            f'[store]\npath = "{config.parent}/telemetry.db"\nflush_period_s = 0.2\n'
        )

    def start(self) -> None:
        argv = [sys.executable, "-m", "slurm_power.cli.agent", "--config", str(self.config), "--node", NODE]
        environment = self.cluster.environment() | {ENVIRONMENT: str(self.cluster.gpu_state(NODE))}
        self.cluster.services.start(SERVICE, argv, log=self.folder / "agent.log", env=environment)
        assert wait_for(self.cluster.agent_socket(NODE).exists, timeout_s=TIMEOUT_S)

    def kill(self) -> None:
        self.cluster.services.signal(SERVICE, signal.SIGKILL)
        self.cluster.services.wait_until_gone(SERVICE, timeout_s=TIMEOUT_S)
        self.cluster.agent_socket(NODE).unlink()

    def joules(self) -> float:
        return sum(self.gpus.gpu_energy_joules(uuid) for uuid in self.gpus.gpu_uuids())

    def holders(self) -> set[Holder | None]:
        """Of all boards, as last written down."""
        store = SqliteStore(self.config.parent / "telemetry.db", retention_s=9e9)
        marks = EnergyRecords(store).marks(0.0, 9e9)
        store.close()
        return set({mark.uuid: mark.holder for mark in marks}.values())

    def told(self, since_s: float) -> dict[str, Any]:
        options = ["--config", str(self.config), "--since", f"@{since_s}", "--json"]
        result = CliRunner().invoke(jobs, ["energy", *options])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.output)
        return found


@pytest.fixture
def agent(slurm: DevCluster, tmp_path: Path) -> Iterator[CountingAgent]:
    agent = CountingAgent(slurm, tmp_path / "slurm-power.toml")
    agent.start()
    try:
        yield agent
    finally:
        slurm.cancel_everything()
        slurm.services.stop(SERVICE)
        agent.gpus.close()
        (agent.folder / "journal").unlink(missing_ok=True)


def test_a_jobs_joules_are_those_of_its_boards_although_the_agent_was_killed(
    slurm: DevCluster, agent: CountingAgent
) -> None:
    began_s, before_joules = time.time(), agent.joules()
    job_id = slurm.sbatch("--nodelist=n1", "--gpus-per-node=2", script="sleep 300", user="nobody")
    slurm.wait_for_job(job_id, "RUNNING")
    assert wait_for(lambda: [job["job_id"] for job in agent.told(began_s)["jobs"]] == [job_id], timeout_s=TIMEOUT_S)
    agent.kill()
    time.sleep(3.0)  # what is drawn while nobody looks
    agent.start()
    slurm.run("scancel", str(job_id))
    slurm.wait_for_job(job_id, "CANCELLED")
    assert wait_for(lambda: agent.holders() == {None}, timeout_s=TIMEOUT_S)
    least_joules = agent.joules() - before_joules
    slurm.services.stop(SERVICE)
    most_joules = agent.joules() - before_joules
    found = agent.told(began_s)
    (job,) = found["jobs"]
    parts = [job, found["idle"]]
    told_joules = sum(part["gpu_counted_joules"] + part["gpu_integrated_joules"] for part in parts)
    # The boards run on between our readings and the agent's.
    assert 0.9 * least_joules <= told_joules <= 1.1 * most_joules
    assert len(job["attempts"]) == 1
    assert job["gpus"] == 2
    assert job["mean_watts"] > 0
