"""The agent program on a node of a real Slurm: caps while a job runs, and after whatever ended it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode
from slurm_power.testing.processes import wait_for

NODE, SERVICE, USER = "n1", "agent-n1", "nobody"
FOUND_WATTS = 600.0
GRACE_S = 3.0
LONG = "sleep 300"
TIMEOUT_S = 30.0


class AgentOnSlurm:
    def __init__(self, cluster: DevCluster) -> None:
        self.cluster = cluster
        self.folder = cluster.node_directory(NODE)
        self.gpus = EmulatedNode.open(cluster.gpu_state(NODE))
        for uuid in self.gpus.gpu_uuids():
            self.gpus.set_found_cap(uuid, FOUND_WATTS)

    def start(self) -> None:
        config = self.folder / "agent.toml"
        config.write_text(
            f"[agent]\nsafe_cap_watts = 400\nsample_period_s = 0.2\npresence_period_s = 0.5\n"
            f'absent_grace_s = {GRACE_S}\nsocket = "{self.folder}/agent.sock"\njournal = "{self.folder}/journal"\n'
        )
        argv = [sys.executable, "-m", "slurm_power.cli.agent", "--config", str(config), "--node", NODE]
        environment = self.cluster.environment() | {ENVIRONMENT: str(self.cluster.gpu_state(NODE))}
        self.cluster.services.start(SERVICE, argv, log=self.folder / "agent.log", env=environment)
        assert wait_for(self.cluster.agent_socket(NODE).exists, timeout_s=TIMEOUT_S)

    def kill(self) -> None:
        self.cluster.services.signal(SERVICE, signal.SIGKILL)
        self.cluster.services.wait_until_gone(SERVICE, timeout_s=5.0)
        self.cluster.agent_socket(NODE).unlink()

    def close(self) -> None:
        self.cluster.services.stop(SERVICE)
        self.gpus.close()
        (self.folder / "journal").unlink(missing_ok=True)

    def submit(self, *options: str, script: str = LONG) -> int:
        job_id = self.cluster.sbatch("--nodelist=n1", *options, script=script, user=USER)
        self.cluster.wait_for_job(job_id, "RUNNING")
        return job_id

    def caps(self) -> list[float]:
        return [self.gpus.gpu_cap_watts(self.gpus.uuid_of_minor(minor)) for minor in range(4)]

    def become(self, *caps: float) -> bool:
        return wait_for(lambda: self.caps() == list(caps), timeout_s=TIMEOUT_S, poll_s=0.05)


@pytest.fixture
def node(slurm: DevCluster) -> Iterator[AgentOnSlurm]:
    agent = AgentOnSlurm(slurm)
    agent.start()
    try:
        yield agent
    finally:
        slurm.cancel_everything()
        agent.close()


FREE = FOUND_WATTS


def test_exactly_the_jobs_gpus_are_capped_and_come_back_after_scancel(node: AgentOnSlurm) -> None:
    job_id = node.submit("--gpus-per-node=2", "--gpu-power-cap=300")
    assert node.become(300, 300, FREE, FREE)
    node.cluster.run("scancel", str(job_id))
    assert node.become(FREE, FREE, FREE, FREE)


def test_two_jobs_hold_their_own_caps(node: AgentOnSlurm) -> None:
    first = node.submit("--gpus-per-node=1", "--gpu-power-cap=300")
    node.submit("--gpus-per-node=2", "--gpu-power-cap=450W")
    assert node.become(300, 450, 450, FREE)
    node.cluster.run("scancel", str(first))
    assert node.become(FREE, 450, 450, FREE)


def test_kill_9_of_the_agent_keeps_the_cap_of_a_job_that_hides_its_environment(node: AgentOnSlurm) -> None:
    job_id = node.submit("--gpus-per-node=1", "--gpu-power-cap=300", script="exec env -i sleep 300")
    assert node.become(300, FREE, FREE, FREE)
    node.kill()
    node.start()
    assert not wait_for(lambda: node.caps()[0] != 300, timeout_s=3 * GRACE_S, poll_s=0.2)
    node.cluster.run("scancel", str(job_id))
    assert node.become(FREE, FREE, FREE, FREE)


def test_a_job_cancelled_while_the_agent_was_dead_gives_its_gpus_back(node: AgentOnSlurm) -> None:
    job_id = node.submit("--gpus-per-node=2", "--gpu-power-cap=300")
    assert node.become(300, 300, FREE, FREE)
    node.kill()
    node.cluster.run("scancel", str(job_id))
    node.cluster.wait_for_job(job_id, "CANCELLED")
    assert node.caps() == [300, 300, FREE, FREE]
    node.start()
    assert node.become(FREE, FREE, FREE, FREE)


def test_a_job_killed_together_with_slurmd_gives_its_gpus_back(node: AgentOnSlurm) -> None:
    job_id = node.submit("--gpus-per-node=1", "--gpu-power-cap=300")
    assert node.become(300, FREE, FREE, FREE)
    node.cluster.kill_node(NODE)
    for pid in processes_of(job_id, str(node.cluster.layout.slurm_conf)):
        os.kill(pid, signal.SIGKILL)
    assert node.become(FREE, FREE, FREE, FREE)


def processes_of(job_id: int, slurm_conf: str) -> list[int]:
    """The step daemons and tasks of a job of this cluster; other clusters of this machine have the same job numbers."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            title, environ = (process / "cmdline").read_bytes(), (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = title.startswith(b"slurmstepd: [%d." % job_id) or b"SLURM_JOB_ID=%d" % job_id in environ
        if ours and b"SLURM_CONF=" + slurm_conf.encode() in environ:
            found.append(int(process.name))
    return found
