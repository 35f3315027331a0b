"""Jobs come and go; their records survive a crash."""

from __future__ import annotations

import pytest

from slurm_power.errors import DeviceRefused, NotPermitted
from slurm_power.gpu.allocation import Allocation
from slurm_power.gpu.job_table import begun, conflicts, ended, holder_of, job_records, lowered, owned, read_jobs, slowed
from slurm_power.gpu.options import PowerOptions

FIRST = Allocation(1, 1000, ("GPU-a", "GPU-b"), PowerOptions(gpu_cap_watts=300.0))
SECOND = Allocation(2, 1001, ("GPU-b", "GPU-c"))


def test_the_next_job_on_a_gpu_puts_the_one_before_out() -> None:
    jobs = begun({1: FIRST}, SECOND)
    assert conflicts({1: FIRST}, SECOND) == (FIRST,)
    assert jobs == {2: SECOND}


def test_a_repeated_start_keeps_what_the_job_asked_for_meanwhile() -> None:
    job = lowered(FIRST, "GPU-a", 250.0, min_watts=200.0, max_watts=700.0)
    assert begun({1: job}, FIRST) == {1: job}


def test_a_requeued_job_that_comes_back_elsewhere_is_new() -> None:
    moved = Allocation(1, 1000, ("GPU-c",))
    assert begun({1: FIRST}, moved) == {1: moved}


def test_an_unknown_end_is_harmless() -> None:
    assert ended({1: FIRST}, {9}) == {1: FIRST}
    assert holder_of(ended({1: FIRST}, {1}), "GPU-a") is None


def test_only_the_owner_and_root_reach_a_job() -> None:
    assert owned({1: FIRST}, 1, uid=1000) == owned({1: FIRST}, 1, uid=0) == FIRST
    for job_id, uid in ((1, 1001), (9, 1000)):
        with pytest.raises(NotPermitted, match="holds no GPU here or is not yours"):
            owned({1: FIRST}, job_id, uid=uid)


@pytest.mark.parametrize("watts", [100.0, 301.0, 800.0])
def test_a_running_job_may_only_lower_inside_the_range(watts: float) -> None:
    with pytest.raises(DeviceRefused, match="watts = "):
        lowered(FIRST, "GPU-a", watts, min_watts=200.0, max_watts=700.0)


def test_a_job_cannot_touch_a_gpu_that_is_not_its_own() -> None:
    with pytest.raises(NotPermitted):
        lowered(FIRST, "GPU-c", 250.0, min_watts=200.0, max_watts=700.0)


def test_a_wish_can_be_withdrawn() -> None:
    job = lowered(FIRST, "GPU-a", 250.0, min_watts=200.0, max_watts=700.0)
    assert lowered(job, "GPU-a", None, min_watts=200.0, max_watts=700.0) == FIRST


@pytest.mark.parametrize("mhz", [300, 1201, 2500])
def test_a_running_job_may_only_slow_its_gpus_inside_the_range(mhz: int) -> None:
    job = Allocation(1, 1000, ("GPU-a",), PowerOptions(gpu_clock_mhz=1200))
    with pytest.raises(DeviceRefused, match="mhz = "):
        slowed(job, "GPU-a", mhz, min_mhz=345, max_mhz=1980)


def test_a_clock_wish_holds_for_one_own_gpu_and_can_be_withdrawn() -> None:
    job = slowed(FIRST, "GPU-a", 900, min_mhz=345, max_mhz=1980)
    assert (job.user_clock_mhz("GPU-a"), job.user_clock_mhz("GPU-b")) == (900, None)
    assert slowed(job, "GPU-a", None, min_mhz=345, max_mhz=1980) == FIRST
    with pytest.raises(NotPermitted):
        slowed(FIRST, "GPU-c", 900, min_mhz=345, max_mhz=1980)


def test_jobs_survive_the_journal_with_their_wishes() -> None:
    job = lowered(FIRST, "GPU-a", 250.0, min_watts=200.0, max_watts=700.0)
    job = slowed(job, "GPU-b", 900, min_mhz=345, max_mhz=1980)
    records = job_records(job, boot_id="boot-1") + job_records(SECOND, boot_id="boot-1")
    assert read_jobs(records, boot_id="boot-1") == ({1: job, 2: SECOND}, ())
    assert read_jobs(records, boot_id="boot-2") == ({}, ())


def test_an_unreadable_job_is_named() -> None:
    jobs, unreadable = read_jobs([{"kind": "job", "boot_id": "b", "job_id": 1}], boot_id="b")
    assert jobs == {}
    assert len(unreadable) == 1
