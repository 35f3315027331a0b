"""The job's joules over several nodes: a sum of all counters, or unknown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from job_wrappers.serving.launch.energy import JobCounters
from slurm_power.errors import Unavailable


def reading(joules: Mapping[str, float]) -> JobCounters:
    counters = JobCounters(other_ranks=0, read=lambda uuids: {uuid: joules[uuid] for uuid in uuids})
    counters.use(tuple(joules))
    return counters


def test_this_nodes_counters_are_read_on_the_spot() -> None:
    joules = {"GPU-a": 10.0, "GPU-b": 5.0}
    counters = reading(joules)
    assert counters.total_joules() == 15.0
    joules["GPU-a"] += 2.0
    assert counters.total_joules() == 17.0


def test_without_a_gpu_or_with_a_counter_that_cannot_be_read_there_is_no_sum() -> None:
    def broken(uuids: tuple[str, ...]) -> Mapping[str, float]:
        raise Unavailable("NVML: gone")

    assert reading({}).total_joules() is None
    counters = JobCounters(other_ranks=0, read=broken)
    counters.use(("GPU-a",))
    assert counters.total_joules() is None


def test_other_ranks_count_as_they_last_told_and_one_that_is_silent_makes_the_sum_unknown() -> None:
    counters = JobCounters(other_ranks=2, read=lambda uuids: {"GPU-a": 1.0})
    counters.hear(4, {"GPU-c": 100.0})
    counters.hear(8, {"GPU-d": 1000.0})
    counters.use(("GPU-a",))
    assert counters.total_joules() == 1101.0
    counters.hear(8, {"GPU-d": 2000.0})
    assert counters.total_joules() == 2101.0
    counters.hear(4, {"unknown": "no GPU is known on n2"})
    assert counters.total_joules() is None


def test_ranks_on_this_node_only_name_their_gpus() -> None:
    counters = JobCounters(other_ranks=1, read=lambda uuids: dict.fromkeys(uuids, 2.0))
    counters.hear(1, {"here": ["GPU-b"]})
    counters.use(("GPU-a",))
    assert counters.total_joules() == 4.0


def test_a_counter_that_two_ranks_read_counts_once_and_as_the_newer_reading_says() -> None:
    counters = JobCounters(other_ranks=2, read=lambda uuids: {"GPU-a": 1.0})
    counters.hear(4, {"GPU-c": 120.0, "GPU-d": 10.0})
    counters.hear(5, {"GPU-d": 9.0})
    counters.use(("GPU-a",))
    assert counters.total_joules() == 131.0


@pytest.mark.parametrize("message", [None, [], {}, {"GPU-c": "many"}, {"GPU-c": None}])
def test_what_is_no_counter_is_not_counted(message: object) -> None:
    counters = JobCounters(other_ranks=1, read=lambda uuids: {"GPU-a": 1.0})
    counters.hear(4, message)
    counters.use(("GPU-a",))
    assert counters.total_joules() is None
