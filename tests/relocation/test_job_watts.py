"""What jobs will draw: learned from runs, with a margin, never from too few, bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurm_power.relocation import job_watts
from slurm_power.relocation.job_mark import parse_mark, with_mark
from slurm_power.relocation.job_power import JobPower
from slurm_power.relocation.job_watts import (
    ANY_NAME,
    JobWatts,
    from_records,
    name_key,
    table_text,
    to_records,
)
from slurm_power.relocation.jobs import JobState
from tests.relocation.test_queue_state import RUNNING


def power(job_id: int, *, gpu_watts: float, name: str = "train", uid: int = 7) -> JobPower:
    job = replace(RUNNING, job_id=job_id, name=name, uid=uid)
    mark, power_class = parse_mark(""), None
    return JobPower(
        job=job,
        mark=mark,
        power_class=power_class,  # type: ignore[arg-type] # not looked at
        license_name="watts",
        licensed_watts=3000.0,
        gpu_watts=gpu_watts,
        busy_gpus=4.0,
        drawn_gpu_watts=4 * gpu_watts,
    )


def run(learned: JobWatts, job_id: int, *, gpu_watts: float, ticks: int = job_watts.MIN_TICKS, **of: object) -> None:
    for _ in range(ticks):
        learned.observe([power(job_id, gpu_watts=gpu_watts, **of)])  # type: ignore[arg-type]
    learned.observe([])


def test_three_runs_foresee_the_next_one_with_a_margin_above_the_highest() -> None:
    learned = JobWatts()
    for job_id, watts in enumerate((300.0, 320.0, 280.0)):
        assert learned.foreseen(gpu_max_watts=700.0) == {}
        run(learned, job_id, gpu_watts=watts, name=f"train_{job_id}")
    assert learned.foreseen(gpu_max_watts=700.0) == {(7, "train_#"): 336}


def test_a_user_with_many_runs_has_a_value_for_new_names_too() -> None:
    learned = JobWatts()
    for job_id in range(10):
        run(learned, job_id, gpu_watts=200.0, name="abcdefghij"[job_id])
    assert learned.foreseen(gpu_max_watts=700.0) == {(7, ANY_NAME): 210}


def test_a_job_hardly_seen_and_one_whose_gpus_are_silent_teach_nothing() -> None:
    learned = JobWatts()
    run(learned, 1, gpu_watts=300.0, ticks=job_watts.MIN_TICKS - 1)
    silent = replace(power(2, gpu_watts=700.0), drawn_gpu_watts=None)
    for _ in range(10):
        learned.observe([silent])
    learned.observe([])
    assert learned.runs == {}


def test_a_suspended_job_has_not_ended() -> None:
    learned = JobWatts()
    for _ in range(5):
        learned.observe([power(1, gpu_watts=300.0)])
    asleep = power(1, gpu_watts=300.0)
    assert not learned.observe([replace(asleep, job=replace(asleep.job, state=JobState.SUSPENDED))])
    assert learned.observe([])


def test_jobs_at_the_boards_maximum_are_not_written_down() -> None:
    learned = JobWatts({(7, "train"): [690.0, 690.0, 690.0]})
    assert learned.foreseen(gpu_max_watts=700.0) == {}


def test_the_books_are_bounded_and_the_oldest_key_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_watts, "MAX_ENTRIES", 4)
    learned = JobWatts()
    for job_id, name in enumerate("abcd"):
        run(learned, job_id, gpu_watts=300.0, name=name)
    assert list(learned.runs) == [(7, "b"), (7, "c"), (7, "d"), (7, ANY_NAME)]
    assert len(learned.runs[7, ANY_NAME]) == 4


@pytest.mark.parametrize(
    ("name", "key"),
    [("train_12", "train_#"), ("a" * 64, "a" * 64), ("a" * 65, "*"), ("", "*"), ("two words", "*"), ("x\n1 y 3", "*")],
)
def test_names_become_keys_that_fit_a_line(name: str, key: str) -> None:
    assert name_key(name) == key


def test_what_is_written_down_is_read_again() -> None:
    runs = {(7, "train_#"): [300.0, 310.5], (8, ANY_NAME): [50.0]}
    assert from_records(to_records(runs)) == runs
    assert table_text({(8, "*"): 60, (7, "a"): 50}) == "7 a 50\n8 * 60\n"
    with pytest.raises(ValueError, match="without"):
        from_records([{"uid": 1}])


def test_the_mark_carries_what_was_foreseen() -> None:
    mark = parse_mark("slurm-power:class=flexible,foreseen=336")
    assert mark.foreseen_watts == 336.0
    assert with_mark("", mark) == "slurm-power:class=flexible,foreseen=336"
