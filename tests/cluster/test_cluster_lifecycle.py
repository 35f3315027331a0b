"""The development cluster comes up, goes down and recovers; it touches only what is its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from slurm_power.errors import ConfigError
from slurm_power.testing.cluster import ClusterSettings, DevCluster
from slurm_power.testing.cluster.fixtures import temporary_cluster
from slurm_power.testing.processes import marked_pids, wait_for


@pytest.fixture
def small_cluster() -> Iterator[DevCluster]:
    with temporary_cluster(ClusterSettings(node_count=2, gpus_per_node=2)) as cluster:
        yield cluster


def daemon_pids(cluster: DevCluster) -> list[int]:
    return [pid for pid in cluster.status().daemons.values() if pid is not None]


def everything_of(cluster: DevCluster) -> list[int]:
    return [pid for file in cluster.layout.run.glob("*.pid") for pid in marked_pids(str(file))]


def test_up_brings_every_node_to_work_and_down_leaves_no_process(small_cluster: DevCluster) -> None:
    assert small_cluster.up()
    status = small_cluster.status()
    assert status.running
    assert status.nodes == {"n1": "idle", "n2": "idle"}
    pids = daemon_pids(small_cluster)
    assert len(pids) == 4

    assert small_cluster.down() == ["slurmd-n2", "slurmd-n1", "slurmctld", "munged"]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110
    assert small_cluster.status().daemons == {}


def test_a_second_up_changes_nothing(small_cluster: DevCluster) -> None:
    small_cluster.up()
    before = small_cluster.status()
    assert not small_cluster.up()
    assert small_cluster.status() == before


def test_a_running_cluster_refuses_to_become_another_one(small_cluster: DevCluster) -> None:
    small_cluster.up()
    other = DevCluster(small_cluster.directory, ClusterSettings(node_count=3, gpus_per_node=2))
    with pytest.raises(ConfigError, match=r"cluster of 2 nodes .* take it down first"):
        other.up()


def test_up_recovers_after_everything_was_killed(small_cluster: DevCluster) -> None:
    small_cluster.up()
    for pid in daemon_pids(small_cluster):
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not small_cluster.status().running, timeout_s=5)

    assert small_cluster.up()
    job_id = small_cluster.sbatch("--gpus=1", "--time=1", script="true")
    small_cluster.wait_for_job(job_id, "COMPLETED")


def test_down_ends_the_jobs_processes_after_their_daemon_was_killed(small_cluster: DevCluster) -> None:
    small_cluster.up()
    job_id = small_cluster.sbatch("--nodelist=n1", "--time=5", script="sleep 300")
    small_cluster.wait_for_job(job_id, "RUNNING")
    slurmd_n1 = small_cluster.layout.run / "slurmd-n1.pid"
    assert wait_for(lambda: len(marked_pids(str(slurmd_n1))) >= 4, timeout_s=10), "slurmd, step, script, sleep"

    small_cluster.kill_node("n1")
    assert len(marked_pids(str(slurmd_n1))) == 3, "a job survives its slurmd"

    small_cluster.down()
    assert marked_pids(str(slurmd_n1)) == []


def test_two_clusters_live_side_by_side(small_cluster: DevCluster) -> None:
    small_cluster.up()
    with temporary_cluster(ClusterSettings(node_count=1, gpus_per_node=0)) as other:
        other.up()
        job_id = other.sbatch("--time=1", script="hostname")
        other.wait_for_job(job_id, "COMPLETED")
        assert small_cluster.job_states() == {}
    assert small_cluster.status().running
