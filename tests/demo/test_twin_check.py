"""The twin beside the real cluster: starts that follow from the rules are the same, others are measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_power.demo.result import JobSpan
from slurm_power.demo.settings import DemoSettings
from slurm_power.demo.stream import DemoJob
from slurm_power.demo.twin_check import start_differences

SETTINGS = DemoSettings(directory=Path("unused"), nodes=1, gpus_per_node=4)


def span(name: str, *, gpus: int, submit_s: float, start_s: float, end_s: float) -> JobSpan:
    return JobSpan(name, "flexible", gpus, submit_s, start_s, end_s, False, False, False)


def stream(*names: str) -> list[DemoJob]:
    return [DemoJob(name, 0.0, None, 1, 10.0, 1) for name in names]


def test_a_job_that_had_to_wait_for_gpus_starts_when_they_are_free() -> None:
    spans = [
        span("first", gpus=4, submit_s=0.0, start_s=0.0, end_s=30.0),
        span("second", gpus=2, submit_s=5.0, start_s=30.0, end_s=40.0),
    ]
    found = start_differences(spans, stream("first", "second"), SETTINGS)
    assert found is not None
    assert found.worst_s == pytest.approx(0.0, abs=1.0)


def test_what_the_real_scheduler_took_longer_for_is_the_difference() -> None:
    spans = [span("only", gpus=1, submit_s=0.0, start_s=7.0, end_s=20.0)]
    found = start_differences(spans, stream("only"), SETTINGS)
    assert found is not None
    assert found.median_s == pytest.approx(7.0, abs=1.0)


def test_without_a_job_there_is_nothing_to_say() -> None:
    assert start_differences([], [], SETTINGS) is None
