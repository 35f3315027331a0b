"""What the command client must survive on a real Slurm beyond the contract: arrays, dead daemons, other users."""

from __future__ import annotations

import signal
import time

import pytest

from slurm_power.adapters.slurm_command import CommandSlurmClient
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.relocation.jobs import Job, JobState, LicenseReservation
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.cluster.fixtures import temporary_cluster
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.processes import wait_for


@pytest.fixture
def client(slurm: DevCluster) -> CommandSlurmClient:
    return CommandSlurmClient(SlurmConfig(slurm_conf=slurm.layout.slurm_conf, timeout_s=5.0))


def jobs_by_name(client: CommandSlurmClient, name: str) -> list[Job]:
    return [job for job in client.jobs() if job.name == name]


def test_deferring_the_waiting_tasks_of_an_array_leaves_the_running_ones_alone(
    slurm: DevCluster, client: CommandSlurmClient
) -> None:
    array_id = slurm.sbatch("--array=1-4%1", "--job-name=array", "--gpus=1", "--time=10", script="sleep 300")
    assert wait_for(
        lambda: [job.state for job in jobs_by_name(client, "array")].count(JobState.RUNNING) == 1, timeout_s=20
    )
    waiting = next(job for job in jobs_by_name(client, "array") if job.state is JobState.PENDING)
    assert waiting.job_id == array_id

    client.update_job(waiting.job_id, begin_wall_s=waiting.submit_wall_s + 3600, admin_comment="deferred")
    running = next(job for job in jobs_by_name(client, "array") if job.state is JobState.RUNNING)
    waiting = next(job for job in jobs_by_name(client, "array") if job.state is JobState.PENDING)
    assert waiting.begin_wall_s == waiting.submit_wall_s + 3600
    assert waiting.admin_comment == "deferred"
    assert running.admin_comment != "deferred"

    client.cancel(running.job_id)
    assert wait_for(
        lambda: [job.state for job in jobs_by_name(client, "array")].count(JobState.OTHER) == 1, timeout_s=20
    )
    assert next(job for job in jobs_by_name(client, "array") if job.job_id == waiting.job_id).state is JobState.PENDING


def test_a_job_of_several_nodes_tells_all_of_them(slurm: DevCluster, client: CommandSlurmClient) -> None:
    job_id = slurm.sbatch("--nodes=2", "--gpus-per-node=3", "--time=5", script="sleep 60")
    slurm.wait_for_job(job_id, "RUNNING")
    job = next(job for job in client.jobs() if job.job_id == job_id)
    assert (len(job.node_names), job.node_count, job.gpus) == (2, 2, 6)


def test_a_dead_slurmctld_is_unavailable_within_the_timeout() -> None:
    """On a cluster of its own: a slurmctld killed before it saved its state gives job ids out twice, and slurmd
    then refuses the second job's credential as revoked."""
    with temporary_cluster(ClusterSettings(node_count=1, gpus_per_node=0)) as doomed:
        doomed.up()
        client = CommandSlurmClient(SlurmConfig(slurm_conf=doomed.layout.slurm_conf, timeout_s=5.0))
        assert client.jobs() == []
        doomed.services.signal("slurmctld", signal.SIGKILL)
        assert doomed.services.wait_until_gone("slurmctld", timeout_s=5)
        with pytest.raises(Unavailable):
            client.jobs()
        with pytest.raises(Unavailable):
            client.cancel(1)
        with pytest.raises(Unavailable):
            client.license_pools()


def test_a_stopped_slurmctld_costs_no_more_than_the_timeout(slurm: DevCluster) -> None:
    slurm.services.signal("slurmctld", signal.SIGSTOP)
    try:
        impatient = CommandSlurmClient(SlurmConfig(slurm_conf=slurm.layout.slurm_conf, timeout_s=0.5))
        with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s"):
            impatient.jobs()
    finally:
        slurm.services.signal("slurmctld", signal.SIGCONT)


def test_a_dead_slurmd_shows_as_a_node_that_is_not_up(slurm: DevCluster, client: CommandSlurmClient) -> None:
    slurm.kill_node("n2")
    assert wait_for(
        lambda: [node.node_name for node in client.nodes() if not node.up] == ["n2"], timeout_s=60, poll_s=0.5
    )
    slurm.start_node("n2")
    assert all(node.up for node in client.nodes())


def test_another_users_job_is_told_with_its_owner_and_never_obeys_a_third(
    slurm: DevCluster, client: CommandSlurmClient
) -> None:
    job_id = slurm.sbatch("--gpus=1", "--time=5", script="sleep 60", user="nobody")
    job = next(job for job in client.jobs() if job.job_id == job_id)
    assert job.user_name == "nobody"
    with pytest.raises(DeviceRefused, match="denied"):
        slurm.run("scontrol", "update", f"JobId={job_id}", "AdminComment=mine", user="daemon")
    with pytest.raises(DeviceRefused):
        slurm.run("scontrol", "update", f"JobId={job_id}", "AdminComment=mine", user="nobody")


def test_a_held_back_job_starts_without_us_when_the_reservation_ends(
    slurm: DevCluster, client: CommandSlurmClient
) -> None:
    now_s = float(round(time.time()))
    peak = LicenseReservation("peak", now_s, now_s + 15, {"watts": 13000})
    client.create_reservation(peak)
    job_id = slurm.sbatch("--gpus=2", "--time=60", script="sleep 60")
    assert wait_for(lambda: slurm.job_facts(job_id).get("Reason") == "Licenses", timeout_s=10)

    slurm.wait_for_job(job_id, "RUNNING", timeout_s=45)
    start_s = next(job.start_wall_s for job in client.jobs() if job.job_id == job_id)
    assert start_s is not None
    assert start_s >= peak.end_wall_s
