"""What the simulated Slurm adds to the contract: order, backfill, time that passes between two calls."""

from __future__ import annotations

import pytest

from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.relocation.jobs import Job, JobState, LicenseReservation
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.simulated_slurm import SimulatedSlurmClient


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall_s=1_800_000_000.0)


@pytest.fixture
def slurm(clock: FakeClock) -> SimulatedSlurmClient:
    return SimulatedSlurmClient(clock, node_count=2, gpus_per_node=4, licenses={"watts": 1000})


def job_of(slurm: SimulatedSlurmClient, job_id: int) -> Job:
    return next(job for job in slurm.jobs() if job.job_id == job_id)


def test_a_long_sleep_sees_every_job_start_when_the_one_before_it_ended(
    slurm: SimulatedSlurmClient, clock: FakeClock
) -> None:
    begin_s = clock.wall_s()
    ids = [slurm.submit(gpus=8, node_count=2, time_limit_s=100, run_s=60) for _ in range(3)]
    clock.advance(1000)
    ended = [job_of(slurm, job_id) for job_id in ids]
    assert [(job.start_wall_s, job.end_wall_s) for job in ended] == [
        (begin_s, begin_s + 60),
        (begin_s + 60, begin_s + 120),
        (begin_s + 120, begin_s + 180),
    ]


def test_a_job_that_runs_longer_than_its_limit_times_out(slurm: SimulatedSlurmClient, clock: FakeClock) -> None:
    job_id = slurm.submit(time_limit_s=60, run_s=100)
    clock.advance(61)
    job = job_of(slurm, job_id)
    assert (job.raw_state, job.end_wall_s) == ("TIMEOUT", clock.wall_s() - 1)


def test_a_small_job_is_backfilled_only_if_it_delays_nobody(slurm: SimulatedSlurmClient) -> None:
    slurm.submit(gpus=4, time_limit_s=100)
    wide = slurm.submit(gpus=8, node_count=2, time_limit_s=100)
    short = slurm.submit(gpus=1, time_limit_s=50)
    long = slurm.submit(gpus=1, time_limit_s=500)
    reasons = {job_id: job_of(slurm, job_id).state_reason for job_id in (wide, short, long)}
    assert reasons == {wide: "Resources", short: "None", long: "Priority"}
    assert job_of(slurm, short).state is JobState.RUNNING


def test_a_job_without_licences_holds_nobody_back(slurm: SimulatedSlurmClient) -> None:
    slurm.submit(licenses={"watts": 900})
    waiting = slurm.submit(licenses={"watts": 500})
    small = slurm.submit(licenses={"watts": 100})
    assert job_of(slurm, waiting).state_reason == "Licenses"
    assert job_of(slurm, small).state is JobState.RUNNING


def test_reservations_that_overlap_a_run_add_up_as_in_slurm(slurm: SimulatedSlurmClient, clock: FakeClock) -> None:
    now_s = clock.wall_s()
    slurm.create_reservation(LicenseReservation("a", now_s + 100, now_s + 200, {"watts": 400}))
    slurm.create_reservation(LicenseReservation("b", now_s + 300, now_s + 400, {"watts": 400}))
    long = slurm.submit(time_limit_s=350, licenses={"watts": 300})
    short = slurm.submit(time_limit_s=250, licenses={"watts": 300})
    assert job_of(slurm, long).state_reason == "Licenses"
    assert job_of(slurm, short).state is JobState.RUNNING


def test_a_reservation_that_ends_by_itself_frees_the_job_it_held_back(
    slurm: SimulatedSlurmClient, clock: FakeClock
) -> None:
    now_s = clock.wall_s()
    slurm.create_reservation(LicenseReservation("a", now_s + 10, now_s + 200, {"watts": 800}))
    job_id = slurm.submit(time_limit_s=3600, licenses={"watts": 500})
    clock.advance(250)
    assert job_of(slurm, job_id).start_wall_s == now_s + 200
    assert slurm.license_reservations() == []


def test_a_deferred_job_starts_by_itself(slurm: SimulatedSlurmClient, clock: FakeClock) -> None:
    now_s = clock.wall_s()
    job_id = slurm.submit(begin_wall_s=now_s + 30)
    assert job_of(slurm, job_id).state_reason == "BeginTime"
    clock.advance(100)
    assert job_of(slurm, job_id).start_wall_s == now_s + 30


def test_a_node_that_goes_down_requeues_its_batch_jobs(slurm: SimulatedSlurmClient, clock: FakeClock) -> None:
    batch = slurm.submit(gpus=4)
    fixed = slurm.submit(gpus=4, requeueable=False)
    assert job_of(slurm, batch).node_names == ("n1",)
    slurm.set_node_up("n1", False)
    slurm.set_node_up("n2", False)
    assert job_of(slurm, batch).state is JobState.PENDING
    assert job_of(slurm, fixed).raw_state == "NODE_FAIL"
    assert [node.up for node in slurm.nodes()] == [False, False]

    slurm.set_node_up("n2", True)
    clock.advance(11)
    assert job_of(slurm, batch).node_names == ("n2",)


def test_a_slurm_that_does_not_answer_is_unavailable_and_goes_on(slurm: SimulatedSlurmClient, clock: FakeClock) -> None:
    job_id = slurm.submit(run_s=60)
    slurm.jobs()
    slurm.set_answers(False)
    with pytest.raises(Unavailable):
        slurm.jobs()
    clock.advance(100)
    slurm.set_answers(True)
    assert job_of(slurm, job_id).raw_state == "COMPLETED"


def test_a_job_bigger_than_the_cluster_is_refused(slurm: SimulatedSlurmClient) -> None:
    with pytest.raises(DeviceRefused):
        slurm.submit(gpus=5)
    with pytest.raises(DeviceRefused):
        slurm.submit(gpus=3, node_count=3)
