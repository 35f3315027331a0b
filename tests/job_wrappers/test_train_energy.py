"""The job's joules from counters that several ranks read, each in its own time."""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping
from typing import Any

import pytest

from job_wrappers.agent_client import AgentClient
from job_wrappers.training.energy import EnergyBook, EnergyMeter, Window, gpus_of_rank
from job_wrappers.training.place import RankPlace
from slurm_power.errors import NotPermitted, Unavailable


class KnowingClient(AgentClient):
    def __init__(self, *uuids: str) -> None:
        super().__init__("/nowhere")
        self._uuids = uuids

    def my_gpus(self, job_id: int) -> tuple[str, ...]:
        if not self._uuids:
            raise NotPermitted(f"job {job_id}: holds no GPU here or is not yours")
        return self._uuids


@pytest.mark.parametrize(
    ("local_rank", "known", "own", "expected"),
    [
        pytest.param(0, ("GPU-a", "GPU-b"), "GPU-a", ("GPU-a", "GPU-b"), id="first-of-a-node-reads-all"),
        pytest.param(1, ("GPU-a", "GPU-b"), "GPU-b", ("GPU-b",), id="others-read-their-own"),
        pytest.param(1, ("GPU-a", "GPU-b"), None, (), id="a-cpu-rank-reads-none"),
        pytest.param(0, (), "GPU-a", ("GPU-a",), id="no-agent"),
        pytest.param(0, (), None, (), id="nobody-knows"),
    ],
)
def test_who_reads_which_counters(
    local_rank: int,
    known: tuple[str, ...],
    own: str | None,
    expected: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    place = RankPlace(rank=local_rank, world_size=2, local_rank=local_rank)
    assert gpus_of_rank(place, KnowingClient(*known), own_gpu=own) == expected


def test_counters_are_summed_by_gpu_even_if_two_ranks_read_one() -> None:
    book = EnergyBook()
    book.hear(0, {"GPU-a": 100.0, "GPU-b": 0.0})
    book.hear(1, {"GPU-b": 0.5})
    book.hear(0, {"GPU-a": 160.0, "GPU-b": 20.0})
    assert book.used_joules() == 80.0
    assert book.gpus == 2


def test_without_gpus_the_energy_is_unknown_not_zero() -> None:
    assert EnergyBook().used_joules() is None


def test_a_reading_that_another_overtook_is_no_reset() -> None:
    book = EnergyBook()
    book.hear(0, {"GPU-a": 100.0})
    book.hear(0, {"GPU-a": 160.0})
    book.hear(1, {"GPU-a": 150.0})
    assert book.used_joules() == 60.0


@pytest.mark.parametrize("message", [{"unknown": "no counter"}, {"GPU-a": 1.0}])
def test_a_sum_with_a_gap_is_no_sum(message: Mapping[str, Any]) -> None:
    book = EnergyBook()
    book.hear(0, {"GPU-a": 100.0})
    book.hear(0, message)  # not readable, or run backwards
    book.hear(0, {"GPU-a": 170.0})
    assert book.used_joules() is None
    assert book.take_trace() == []
    assert book.unknown is not None


@pytest.mark.parametrize("message", [None, 5, [1], {"GPU-a": "much"}, {"GPU-a": True}, {"GPU-a": None}])
def test_odd_messages_count_nothing(message: object) -> None:
    book = EnergyBook()
    book.hear(1, message)
    assert book.used_joules() is None


def test_the_trace_is_taken_once() -> None:
    now_unix_s = [0.0]
    book = EnergyBook(now_unix_s=lambda: now_unix_s[0])
    for at_unix_s, joules in ((1.0, 100.0), (1.5, 150.0), (2.0, 300.0), (2.1, 310.0)):
        now_unix_s[0] = at_unix_s
        book.hear(0, {"GPU-a": joules})
    assert book.take_trace() == [(1.0, 0.0), (2.0, 200.0)], "a row a second, however many ranks tell"
    assert book.take_trace() == []
    book.note_end()
    assert book.take_trace() == [(2.1, 210.0)]


def test_a_meter_reads_at_once_in_between_and_at_the_end() -> None:
    sent: queue.Queue[object] = queue.Queue()
    counter = iter(range(1000))
    meter = EnergyMeter(("GPU-a",), sent.put, read=lambda uuids: dict.fromkeys(uuids, next(counter)), period_s=0.01)
    meter.start()
    first = [sent.get(timeout=20.0) for _ in range(3)]
    meter.stop()
    assert first == [{"GPU-a": 0}, {"GPU-a": 1}, {"GPU-a": 2}]
    assert not sent.empty()


def test_a_meter_says_why_it_cannot_read() -> None:
    def unreadable(uuids: tuple[str, ...]) -> Mapping[str, float]:
        raise Unavailable("NVML: Driver Not Loaded")

    sent: list[object] = []
    meter = EnergyMeter(("GPU-a",), sent.append, read=unreadable)
    meter.start()
    meter.stop()
    assert json.dumps(sent[0]) == '{"unknown": "NVML: Driver Not Loaded"}'


def test_a_meter_without_gpus_says_nothing() -> None:
    sent: list[object] = []
    meter = EnergyMeter((), sent.append)
    meter.start()
    meter.stop()
    assert sent == []


def test_the_window_needs_two_counter_readings_and_forgets_the_old() -> None:
    window = Window(length_s=10.0)
    assert window.add(0.0, 0.0, 100) == (None, None)
    assert window.add(1.0, 0.0, 100) == (None, None), "the counter has not been read again yet"
    assert window.add(2.0, 400.0, 100) == (2.0, 200.0)
    assert window.add(12.0, 1400.0, 100) == (10.0, 100.0)
    assert window.add(13.0, None, 100) == (None, None)
