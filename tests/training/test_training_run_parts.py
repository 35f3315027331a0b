"""The smaller parts of a run: schedule, signals, listeners, records, wishes, the shared folder."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.threaded_ranks import ThreadedAgreement, run_threads
from training.checkpoint.agreement import Agreement, Alone, agree_on
from training.errors import ConfigError, Unavailable
from training.run.config_tables import OptimizerTable
from training.run.listener import Fanout, NullListener, RunEvent, StepRecord
from training.run.peers import peers
from training.run.records import RecordFiles, read_events, read_steps
from training.run.schedule import learning_rate
from training.run.shared_folder import check_shared
from training.run.signals import PowerSignals
from training.run.wishes import Wishes


def table(**changes: float) -> OptimizerTable:
    settings = {"learning_rate": 2.0, "warmup_steps": 4, "steps": 14, "final_learning_rate_fraction": 0.25}
    return OptimizerTable(gradient_clipping=1.0, **{**settings, **changes})  # type: ignore[arg-type]


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    rates = [learning_rate(step, table()) for step in range(14)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[9] == pytest.approx(2.0 * (0.25 + 0.75 * 0.5))
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(14, table()) == learning_rate(99, table()) == pytest.approx(0.5)


def test_without_a_warm_up_the_first_step_has_the_whole_rate():
    assert learning_rate(0, table(warmup_steps=0)) == 2.0


@given(warmup=st.integers(0, 50), steps=st.integers(50, 300), fraction=st.floats(0.0, 1.0), step=st.integers(0, 400))
def test_the_learning_rate_stays_between_nothing_and_its_highest(warmup: int, steps: int, fraction: float, step: int):
    rate = learning_rate(step, table(warmup_steps=warmup, steps=steps, final_learning_rate_fraction=fraction))
    assert 0.0 <= rate <= 2.0


# Signals


def wait_for(signals: PowerSignals) -> str:
    until_s = time.monotonic() + 30.0
    while signals.received() is None and time.monotonic() < until_s:
        time.sleep(0.01)
    received = signals.received()
    assert received is not None
    return received.name


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_power_signal_is_noted_and_does_nothing_else(number: signal.Signals):
    with PowerSignals() as signals:
        assert signals.received() is None
        os.kill(os.getpid(), number)
        assert wait_for(signals) == number.name


def test_the_first_signal_counts():
    with PowerSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert wait_for(signals) == "SIGUSR1"
        first = signals.received()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        assert signals.received() == first


def test_handlers_come_back_as_they_were():
    def mine(number: int, frame: object) -> None:
        return None

    found = signal.signal(signal.SIGUSR1, mine)
    try:
        with PowerSignals():
            assert signal.getsignal(signal.SIGUSR1) is not mine
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, found)
    assert not [thread for thread in threading.enumerate() if thread.name == "signals" and _alive(thread)]


def _alive(thread: threading.Thread) -> bool:
    thread.join(5.0)
    return thread.is_alive()


# Listeners and records

RECORD = StepRecord(
    step=1,
    loss=2.5,
    learning_rate=1e-3,
    gradient_norm=0.7,
    tokens=1024,
    step_s=0.5,
    tokens_per_s=2048.0,
    busy_fraction_by_stage=(0.75, 0.5),
    bytes_by_axis={"pipe": 4096.0},
    micro_sequences=4,
    model_flops_utilisation=None,
    sequences_consumed=8,
    ended_at_unix_s=1.7e9,
)
EVENT = RunEvent(kind="resumed", text="going on", step=3, at_unix_s=1.7e9, facts={"checkpoint": "x"})


class Counting(NullListener):
    def __init__(self) -> None:
        self.steps = 0

    def on_step(self, record: StepRecord) -> None:
        self.steps += 1


class Failing(NullListener):
    def on_event(self, event: RunEvent) -> None:
        raise ValueError("no")


def test_one_listener_that_fails_is_dropped_and_the_others_stay(caplog: pytest.LogCaptureFixture):
    counting, failing = Counting(), Failing()
    fanout = Fanout([failing, counting])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            fanout.on_event(EVENT)
            fanout.on_step(RECORD)
    assert counting.steps == 3
    assert fanout.listeners == (counting,)
    assert [record.message for record in caplog.records] == ["listener Failing failed and is dropped: ValueError('no')"]


def test_records_come_back_as_they_were_written(tmp_path: Path):
    files = RecordFiles(tmp_path)
    files.begin_after_step(0)
    files.on_step(RECORD)
    files.on_event(EVENT)
    assert read_steps(tmp_path) == [RECORD]
    assert read_events(tmp_path) == [EVENT]


def test_records_after_the_checkpoint_are_dropped_and_events_stay(tmp_path: Path):
    files = RecordFiles(tmp_path)
    files.begin_after_step(0)
    for step in range(1, 6):
        files.on_step(replace(RECORD, step=step))
    files.on_event(EVENT)
    again = RecordFiles(tmp_path)
    again.begin_after_step(3)
    again.on_step(replace(RECORD, step=4, loss=1.0))
    assert [(record.step, record.loss) for record in read_steps(tmp_path)] == [(1, 2.5), (2, 2.5), (3, 2.5), (4, 1.0)]
    assert read_events(tmp_path) == [EVENT]


def test_a_line_torn_by_a_crash_is_not_read_and_is_removed(tmp_path: Path):
    files = RecordFiles(tmp_path)
    files.begin_after_step(0)
    files.on_step(RECORD)
    path = tmp_path / "steps.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 2, "loss":')
    assert read_steps(tmp_path) == [RECORD]
    RecordFiles(tmp_path).begin_after_step(9)
    assert path.read_bytes().endswith(b"}\n")


def test_no_records_yet_is_an_empty_list(tmp_path: Path):
    assert read_steps(tmp_path / "nowhere") == read_events(tmp_path / "nowhere") == []


# What ranks agree on


@given(st.lists(st.integers(0, 10**9), min_size=7, max_size=7))
def test_wishes_survive_the_way_through_a_row(row: list[int]):
    assert Wishes.of(row).row() == row


def test_a_problem_of_one_rank_is_known_to_all():
    problems = [None, None, "no space", "also not"]
    told = run_threads(lambda agreement: agree_on(agreement, problems[agreement.rank]), 4)
    assert told == ["rank 2: no space"] * 4
    assert run_threads(lambda agreement: agree_on(agreement, None), 3) == [None] * 3
    assert agree_on(Alone(), "mine") == "mine"


def test_a_folder_that_one_node_does_not_share_is_refused_on_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("training.run.shared_folder.SEEN_WITHIN_S", 0.3)

    def check(agreement: Agreement) -> str:
        node = tmp_path / ("node1" if agreement.rank == 2 else "node0")
        with pytest.raises(ConfigError) as refused:
            check_shared(node, agreement, key="run.folder")
        return str(refused.value).replace(str(node), "RUN")

    assert (
        run_threads(check, 3)
        == ["run.folder = RUN: rank 2: does not see what rank 0 wrote; all nodes must share it"] * 3
    )
    assert list((tmp_path / "node0").iterdir()) == []


def test_a_shared_folder_passes_and_is_left_clean(tmp_path: Path):
    def check(agreement: Agreement) -> None:
        assert isinstance(agreement, ThreadedAgreement)
        check_shared(tmp_path / "run" / "deep", agreement, key="run.folder")

    run_threads(check, 3)
    assert list((tmp_path / "run" / "deep").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^run.folder = .*/file/run: Not a directory$"):
        check_shared(tmp_path / "file" / "run", Alone(), key="run.folder")


# Peers

GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4. "
    "This is typically caused by a remote worker\nmore"
)


def test_a_lost_peer_is_one_line():
    with pytest.raises(Unavailable) as raised, peers(lambda: "step 7"):
        raise RuntimeError(GLOO)
    assert str(raised.value) == "step 7: a peer is gone: Connection closed by peer [127.0.0.1]:4"


def test_a_mistake_of_ours_is_not_blamed_on_a_peer():
    with pytest.raises(RuntimeError, match="mat1 and mat2"), peers(lambda: "step 7"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
