"""What every SlurmClient does, asked of the simulated one and of the real ones on a real Slurm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pytest

from slurm_power.adapters.slurm_command import CommandSlurmClient
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.slurm_pyslurm import PyslurmClient
from slurm_power.errors import ConfigError, DeviceRefused
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.relocation.jobs import Job, JobState, LicenseReservation
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.cluster.fixtures import dev_cluster, slurm
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.simulated_slurm import SimulatedSlurmClient

__all__ = ["dev_cluster", "slurm"]

_TIMEOUT_S = 40.0
_HOSTILE = "a=b 'c' \"d\" \n JobId=1 $(reboot) \\"


class Bench(Protocol):
    """One Slurm with 4 nodes x 4 GPUs and 13200 watts, and a way to queue jobs and to wait."""

    client: SlurmClient

    def submit(
        self, *, time_limit_s: float = 3600, watts: int = 0, gpus: int = 1, run_s: float = 3600, name: str = "job"
    ) -> int: ...

    def now_s(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass
class SimulatedBench:
    clock: FakeClock
    client: SimulatedSlurmClient

    def submit(
        self, *, time_limit_s: float = 3600, watts: int = 0, gpus: int = 1, run_s: float = 3600, name: str = "job"
    ) -> int:
        licenses = {"watts": watts} if watts else {}
        return self.client.submit(time_limit_s=time_limit_s, licenses=licenses, gpus=gpus, run_s=run_s, name=name)

    def now_s(self) -> float:
        return self.clock.wall_s()

    def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)


@dataclass
class RealBench:
    cluster: DevCluster
    client: SlurmClient

    def submit(
        self, *, time_limit_s: float = 3600, watts: int = 0, gpus: int = 1, run_s: float = 3600, name: str = "job"
    ) -> int:
        job_id = self.cluster.sbatch(
            "--hold",
            f"--job-name={name}",
            f"--gpus={gpus}",
            f"--time={time_limit_s / 60:.0f}",
            script=f"sleep {run_s}",
        )
        self.client.update_job(job_id, licenses={"watts": watts})
        self.cluster.run("scontrol", "release", str(job_id))
        return job_id

    def now_s(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.3))


@pytest.fixture(
    params=[
        "simulated",
        pytest.param("command", marks=pytest.mark.cluster),
        pytest.param("pyslurm", marks=pytest.mark.cluster),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "simulated":
        clock = FakeClock(wall_s=1_800_000_000.0)
        yield SimulatedBench(clock, SimulatedSlurmClient(clock))
        return
    cluster: DevCluster = request.getfixturevalue("slurm")
    config = SlurmConfig(adapter=request.param, slurm_conf=cluster.layout.slurm_conf)
    if request.param == "command":
        yield RealBench(cluster, CommandSlurmClient(config))
        return
    try:
        yield RealBench(cluster, PyslurmClient(config))
    except ConfigError as reason:
        pytest.skip(str(reason))


def job_of(bench: Bench, job_id: int) -> Job:
    return next(job for job in bench.client.jobs() if job.job_id == job_id)


def wait_for_job(bench: Bench, job_id: int, holds: Callable[[Job], bool]) -> Job:
    deadline_s = bench.now_s() + _TIMEOUT_S
    while not holds(job := job_of(bench, job_id)):
        assert bench.now_s() < deadline_s, job
        bench.sleep(1)
    return job


def wait_until_running(bench: Bench, job_id: int) -> Job:
    return wait_for_job(bench, job_id, lambda job: job.state is JobState.RUNNING)


def wait_for_reason(bench: Bench, job_id: int, reason: str) -> Job:
    return wait_for_job(bench, job_id, lambda job: job.state is JobState.PENDING and job.state_reason == reason)


def peak(bench: Bench, *, after_s: float, watts: int, name: str = "slurm_power_peak") -> LicenseReservation:
    start_s = float(round(bench.now_s() + after_s))
    return LicenseReservation(name, start_s, start_s + 1800, {"watts": watts})


def test_the_version_has_a_year_and_a_month(bench: Bench) -> None:
    assert [part.isdigit() for part in bench.client.version().split(".")[:2]] == [True, True]


def test_every_node_is_there_with_its_gpus(bench: Bench) -> None:
    nodes = {node.node_name: (node.gpus, node.up) for node in bench.client.nodes()}
    assert nodes == {"n1": (4, True), "n2": (4, True), "n3": (4, True), "n4": (4, True)}


def test_a_job_is_told_with_what_it_asked_for_and_got(bench: Bench) -> None:
    before_s = bench.now_s()
    job_id = bench.submit(time_limit_s=1800, watts=900, gpus=2, name="train")
    job = wait_until_running(bench, job_id)
    assert (job.name, job.uid, job.user_name, job.gpus, job.node_count) == ("train", 0, "root", 2, 1)
    assert (job.time_limit_s, dict(job.licenses), job.batch, job.requeueable) == (1800, {"watts": 900}, True, True)
    assert len(job.node_names) == 1
    assert job.start_wall_s is not None
    assert before_s - 1 <= job.submit_wall_s <= job.start_wall_s <= bench.now_s() + 1
    assert (job.begin_wall_s, job.end_wall_s) == (None, None)


def test_a_waiting_job_has_neither_nodes_nor_a_start(bench: Bench) -> None:
    wait_until_running(bench, bench.submit(watts=13000))
    job = wait_for_reason(bench, bench.submit(watts=500, gpus=4), "Licenses")
    assert (job.gpus, job.node_names, job.start_wall_s, job.end_wall_s) == (4, (), None, None)


def test_a_name_made_to_deceive_is_only_a_name(bench: Bench) -> None:
    innocent = bench.submit()
    job_id = bench.submit(name=_HOSTILE)
    jobs = {job.job_id: job for job in bench.client.jobs()}
    assert jobs[job_id].name == _HOSTILE
    assert jobs[innocent].name == "job"


def test_running_jobs_use_up_the_licences(bench: Bench) -> None:
    wait_until_running(bench, bench.submit(watts=900))
    wait_until_running(bench, bench.submit(watts=300))
    pools = bench.client.license_pools()
    assert (pools["watts"].total, pools["watts"].used) == (13200, 1200)
    assert (pools["firm_watts"].total, pools["firm_watts"].used) == (13200, 0)


def test_fewer_licences_of_a_running_job_go_back_to_the_pool(bench: Bench) -> None:
    job_id = bench.submit(watts=900)
    wait_until_running(bench, job_id)
    bench.client.update_job(job_id, licenses={"watts": 400}, admin_comment="slurm-power:class=flexible,capped=300")
    job = job_of(bench, job_id)
    assert (dict(job.licenses), job.state) == ({"watts": 400}, JobState.RUNNING)
    assert job.admin_comment == "slurm-power:class=flexible,capped=300"
    assert bench.client.license_pools()["watts"].used == 400


def test_an_update_leaves_alone_what_it_does_not_name(bench: Bench) -> None:
    job_id = bench.submit(watts=900)
    bench.client.update_job(job_id, admin_comment="ours = 'yes' \"really\"")
    bench.client.update_job(job_id, licenses={"watts": 800})
    job = job_of(bench, job_id)
    assert (job.admin_comment, dict(job.licenses)) == ("ours = 'yes' \"really\"", {"watts": 800})


def test_a_deferred_job_waits_until_it_is_released(bench: Bench) -> None:
    wait_until_running(bench, bench.submit(watts=13200))
    job_id = bench.submit(watts=500)
    later_s = float(round(bench.now_s() + 3600))
    bench.client.update_job(job_id, begin_wall_s=later_s, licenses={"watts": 0})
    assert wait_for_reason(bench, job_id, "BeginTime").begin_wall_s == later_s

    bench.client.update_job(job_id, begin_wall_s=bench.now_s() - 60)
    wait_until_running(bench, job_id)


@pytest.mark.parametrize("comment", ["two\nlines", "bell\a"])
def test_a_comment_that_could_break_the_record_is_refused(bench: Bench, comment: str) -> None:
    job_id = bench.submit()
    with pytest.raises(DeviceRefused):
        bench.client.update_job(job_id, admin_comment=comment)


def test_a_licence_that_does_not_exist_is_refused(bench: Bench) -> None:
    job_id = bench.submit()
    with pytest.raises(DeviceRefused):
        bench.client.update_job(job_id, licenses={"no_such_licence": 3})


def test_a_job_that_does_not_exist_is_refused(bench: Bench) -> None:
    with pytest.raises(DeviceRefused):
        bench.client.update_job(99999, licenses={"watts": 1})
    with pytest.raises(DeviceRefused):
        bench.client.requeue(99999)


def test_a_reservation_is_listed_changed_and_deleted(bench: Bench) -> None:
    first = peak(bench, after_s=600, watts=9000)
    bench.client.create_reservation(first)
    assert list(bench.client.license_reservations()) == [first]

    second = LicenseReservation(first.name, first.start_wall_s + 60, first.end_wall_s + 120, {"watts": 7000})
    bench.client.update_reservation(second)
    assert list(bench.client.license_reservations()) == [second]

    bench.client.delete_reservation(first.name)
    assert list(bench.client.license_reservations()) == []
    bench.client.delete_reservation(first.name)


def test_a_reservation_that_has_begun_can_still_change_its_watts_and_its_end(bench: Bench) -> None:
    first = peak(bench, after_s=1, watts=9000)
    bench.client.create_reservation(first)
    while bench.now_s() < first.start_wall_s + 1:
        bench.sleep(1)
    second = LicenseReservation(first.name, first.start_wall_s, first.end_wall_s + 600, {"watts": 5000})
    bench.client.update_reservation(second)
    assert list(bench.client.license_reservations()) == [second]


def test_two_reservations_may_not_have_one_name(bench: Bench) -> None:
    bench.client.create_reservation(peak(bench, after_s=600, watts=100))
    with pytest.raises(DeviceRefused):
        bench.client.create_reservation(peak(bench, after_s=600, watts=100))


def test_a_reservation_that_does_not_exist_cannot_be_changed(bench: Bench) -> None:
    with pytest.raises(DeviceRefused):
        bench.client.update_reservation(peak(bench, after_s=600, watts=100))


def test_a_short_job_starts_before_the_peak_and_a_long_one_waits(bench: Bench) -> None:
    reservation = peak(bench, after_s=1800, watts=9000)
    bench.client.create_reservation(reservation)
    short = bench.submit(time_limit_s=600, watts=5000)
    long = bench.submit(time_limit_s=7200, watts=5000)
    wait_until_running(bench, short)
    wait_for_reason(bench, long, "Licenses")

    bench.client.delete_reservation(reservation.name)
    wait_until_running(bench, long)


def test_a_job_that_fits_beside_the_reservation_starts(bench: Bench) -> None:
    bench.client.create_reservation(peak(bench, after_s=1800, watts=9000))
    wait_until_running(bench, bench.submit(time_limit_s=7200, watts=4000))


def test_a_requeued_job_waits_and_runs_again(bench: Bench) -> None:
    job_id = bench.submit(watts=900)
    first_s = wait_until_running(bench, job_id).start_wall_s
    bench.sleep(1)
    bench.client.requeue(job_id)
    waiting = wait_for_job(bench, job_id, lambda job: job.state is JobState.PENDING)
    assert (waiting.node_names, waiting.start_wall_s) == ((), None)

    again_s = wait_until_running(bench, job_id).start_wall_s
    assert first_s is not None
    assert again_s is not None
    assert again_s > first_s


def test_a_cancelled_job_is_over_and_frees_its_licences(bench: Bench) -> None:
    job_id = bench.submit(watts=900)
    wait_until_running(bench, job_id)
    bench.client.cancel(job_id)
    over = wait_for_job(bench, job_id, lambda job: job.state is JobState.OTHER and job.end_wall_s is not None)
    assert over.end_wall_s is not None
    assert over.end_wall_s <= bench.now_s() + 1
    wait_for_job(bench, job_id, lambda job: job.raw_state == "CANCELLED")
    assert bench.client.license_pools()["watts"].used == 0


def test_a_finished_job_says_when_it_ended(bench: Bench) -> None:
    job_id = bench.submit(run_s=1)
    over = wait_for_job(bench, job_id, lambda job: job.raw_state == "COMPLETED")
    assert over.start_wall_s is not None
    assert over.end_wall_s is not None
    assert over.start_wall_s <= over.end_wall_s <= bench.now_s() + 1


def test_licences_are_counted_by_name(bench: Bench) -> None:
    job_id = bench.submit()
    wanted: Mapping[str, int] = {"watts": 200, "firm_watts": 100}
    bench.client.update_job(job_id, licenses=wanted)
    assert dict(job_of(bench, job_id).licenses) == wanted
