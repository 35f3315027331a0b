from __future__ import annotations

from dataclasses import replace

from slurm_power.daemons.job_records import AGAIN_S, JobRecorder
from slurm_power.relocation.jobs import Job, JobState

NOW_S = 1_790_000_000.0


def a_job(job_id: int = 7) -> Job:
    return Job(
        job_id=job_id, user_name="ann", uid=1000, name="train", partition="main", state=JobState.RUNNING,
        state_reason="None", gpus=8, node_names=("n1",), submit_wall_s=NOW_S, begin_wall_s=None, start_wall_s=NOW_S,
        time_limit_s=None, licenses={}, batch=True, requeueable=True, admin_comment="", raw_state="RUNNING",
    )  # fmt: skip


def test_a_job_is_written_when_it_starts_when_it_ends_and_once_a_day() -> None:
    recorder = JobRecorder()
    job = a_job()
    pending = replace(job, state=JobState.PENDING, start_wall_s=None, raw_state="PENDING")
    ended = replace(job, state=JobState.OTHER, raw_state="COMPLETED", end_wall_s=NOW_S + AGAIN_S + 60)
    told = [
        len(recorder.points(jobs, wall_s=NOW_S + at_s))
        for at_s, jobs in [(0, [pending]), (1, [job]), (61, [job]), (AGAIN_S + 2, [job]), (AGAIN_S + 61, [ended])]
    ]
    assert told == [0, 1, 0, 1, 1]


def test_each_attempt_of_a_requeued_job_is_written() -> None:
    recorder = JobRecorder()
    recorder.points([a_job()], wall_s=NOW_S)
    recorder.points([replace(a_job(), state=JobState.PENDING, start_wall_s=None)], wall_s=NOW_S + 60)
    (point,) = recorder.points([replace(a_job(), start_wall_s=NOW_S + 200)], wall_s=NOW_S + 260)
    assert point.fields["start_wall_s"] == NOW_S + 200


def test_jobs_of_one_moment_are_points_of_their_own() -> None:
    points = JobRecorder().points([a_job(number) for number in range(100)], wall_s=NOW_S)
    assert len({round(point.wall_s * 1e6) for point in points}) == 100
    assert all(not point.tags for point in points)
