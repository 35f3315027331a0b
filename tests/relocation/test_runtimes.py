"""What finished jobs tell about those that run: limits are asked for generously."""

from __future__ import annotations

import pytest

from slurm_power.relocation.jobs import Job, JobState
from slurm_power.relocation.runtimes import expected_end_wall_s, runtime_fraction, typical_runtime_s


def job(*, ran_s: float | None, limit_s: float | None = 100.0, raw_state: str = "COMPLETED") -> Job:
    return Job(
        job_id=1,
        user_name="u",
        uid=1,
        name="",
        partition="main",
        state=JobState.OTHER if ran_s is not None else JobState.RUNNING,
        state_reason="None",
        gpus=1,
        node_names=(),
        submit_wall_s=0.0,
        begin_wall_s=None,
        start_wall_s=1000.0,
        time_limit_s=limit_s,
        licenses={},
        batch=True,
        requeueable=True,
        admin_comment="",
        raw_state=raw_state if ran_s is not None else "RUNNING",
        end_wall_s=None if ran_s is None else 1000.0 + ran_s,
    )


def test_the_fraction_is_a_high_quantile_of_what_jobs_really_ran() -> None:
    assert runtime_fraction([job(ran_s=10.0 * i) for i in range(1, 11)]) == pytest.approx(0.8)


def test_limits_are_believed_until_enough_jobs_have_finished() -> None:
    assert runtime_fraction([job(ran_s=10.0)] * 9) == 1.0


def test_jobs_that_were_cancelled_or_failed_teach_nothing() -> None:
    assert runtime_fraction([job(ran_s=1.0, raw_state="CANCELLED")] * 50) == 1.0


def test_a_job_is_expected_to_end_at_its_share_of_the_limit() -> None:
    assert expected_end_wall_s(job(ran_s=None), wall_s=1010.0, fraction=0.3) == 1030.0


def test_a_job_that_outlived_its_expectation_runs_on_but_never_past_its_limit() -> None:
    assert expected_end_wall_s(job(ran_s=None), wall_s=1050.0, fraction=0.3) == 1065.0
    assert expected_end_wall_s(job(ran_s=None), wall_s=1095.0, fraction=0.3) == 1100.0


def test_a_job_without_a_limit_has_no_expected_end() -> None:
    assert expected_end_wall_s(job(ran_s=None, limit_s=None), wall_s=1000.0, fraction=0.3) is None


def test_the_typical_runtime_is_the_median_of_those_alive() -> None:
    alive = [job(ran_s=None, limit_s=limit_s) for limit_s in (10.0, 200.0, 3000.0)]
    assert typical_runtime_s([*alive, job(ran_s=5.0)]) == 200.0
    assert typical_runtime_s([job(ran_s=None, limit_s=None)]) is None
