"""What a run's listeners print and send, and that neither can hold the training up."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Mapping, Sequence

import pytest

from job_wrappers.agent_client import AgentClient
from job_wrappers.training.progress import ProgressListener, step_line
from job_wrappers.training.telemetry import QUEUE_POINTS, TelemetryListener
from slurm_power.errors import Unavailable
from tests.job_wrappers.step_records import run_facts, step_record
from training.run.listener import RunEvent, RunResult


class StuckClient(AgentClient):
    """An agent that does not answer until it is let go."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.let_go = threading.Event()

    def send_points(self, job_id: int, points: Sequence[Mapping[str, object]]) -> None:
        self.let_go.wait(60.0)
        raise Unavailable("/nowhere: timed out")


def test_a_stuck_agent_neither_blocks_the_training_nor_fills_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    client = StuckClient()
    listener = TelemetryListener(client, 7, used_joules=lambda: None)
    with caplog.at_level(logging.WARNING):
        for step in range(QUEUE_POINTS + 500):
            listener.on_step(step_record(step=step))
        client.let_go.set()
        listener.close()
    assert listener._queue.qsize() <= QUEUE_POINTS
    assert [record.getMessage() for record in caplog.records] == ["the agent is slow, so some points are left out"]


def test_a_missing_agent_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    listener = TelemetryListener(AgentClient("/nowhere/agent.sock"), 7, used_joules=lambda: None)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            listener.on_step(step_record(step=step))
            time.sleep(0.02)
        listener.close()
    (warning,) = caplog.records
    assert warning.getMessage().startswith("the training runs without full telemetry: /nowhere/agent.sock: ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_through(stream: io.StringIO) -> str:
    listener = ProgressListener(used_joules=lambda: None, every_steps=10, stream=stream)
    listener.on_run_begin(run_facts())
    for step in range(1, 21):
        listener.on_step(step_record(step=step))
        if step == 12:
            listener.on_event(RunEvent(kind="checkpoint_saved", text="checkpoint saved", step=12, at_unix_s=0.0))
    listener.on_run_end(RunResult(exit_code=0, reason="all steps done", step=20, loss=2.5, checkpoint=None))
    return stream.getvalue()


def test_a_file_gets_the_first_every_tenth_and_the_last_step() -> None:
    lines = run_through(io.StringIO()).splitlines()
    assert lines[0] == (
        "deepseek_v3 of 1.2 M parameters, fp8, pipeline 2 x tensor 1 x data 2 x expert 2 on 4 ranks, "
        "8 x 128 tokens a step"
    )
    assert [line.partition("  ")[0] for line in lines[1:]] == [
        "step 1/20",
        "step 10/20",
        "step 12: checkpoint saved",
        "step 20/20",
        "all steps done at step 20",
    ]


def test_a_terminal_gets_one_moving_line_and_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = run_through(Terminal())
    assert "20/20" in text
    assert "step 12: checkpoint saved" in text
    assert text.endswith("all steps done at step 20\n")
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_unknown_power_is_said_and_known_power_has_its_units() -> None:
    unknown = step_line(step_record(), steps=20, joules_per_token=None, watts=None)
    assert "power unknown" in unknown
    known = step_line(step_record(held_out_loss=2.6), steps=20, joules_per_token=0.1234567, watts=1234.5)
    assert known.endswith("1,234 W  0.1235 J/token  held-out 2.6000")
