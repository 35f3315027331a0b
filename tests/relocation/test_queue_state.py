"""What the queue tells the forecast."""

from __future__ import annotations

from dataclasses import replace

from slurm_power.relocation.jobs import Job, JobState
from slurm_power.relocation.queue_state import queue_state

RUNNING = Job(
    job_id=1,
    user_name="ana",
    uid=1,
    name="train",
    partition="main",
    state=JobState.RUNNING,
    state_reason="None",
    gpus=4,
    node_names=("n1",),
    submit_wall_s=0.0,
    begin_wall_s=None,
    start_wall_s=100.0,
    time_limit_s=1000.0,
    licenses={},
    batch=True,
    requeueable=True,
    admin_comment="",
)


def test_running_and_waiting_gpus_and_the_time_they_asked_for_are_counted() -> None:
    waiting = replace(RUNNING, job_id=2, state=JobState.PENDING, start_wall_s=None, gpus=2)
    endless = replace(RUNNING, job_id=3, time_limit_s=None, gpus=1)
    over = replace(RUNNING, job_id=4, state=JobState.OTHER)
    assert queue_state([RUNNING, waiting, endless, over], wall_s=600.0) == {
        "running_gpus": 5.0,
        "pending_gpus": 2.0,
        "pending_jobs": 1.0,
        "remaining_gpu_s": 4 * 500.0,
        "pending_gpu_s": 2 * 1000.0,
    }


def test_a_job_past_its_limit_has_nothing_left() -> None:
    assert queue_state([RUNNING], wall_s=5000.0)["remaining_gpu_s"] == 0.0
