"""Steering a run: what is asked for lands in its folder, and its answer is waited for."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from job_wrappers.train import train
from slurm_power.testing.processes import wait_for
from training.errors import ConfigError, TrainingError, Unavailable
from training.run.control import CONTROL_FILE, ControlFile, ControlRequest
from training.run.listener import RunEvent
from training.run.records import RecordFiles


def steer(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(train, ["steer", str(folder), *arguments])


def answer_with(folder: Path, kind: str, text: str) -> None:
    """As the run does between two steps, once it sees the request."""

    def answer() -> None:
        if wait_for((folder / CONTROL_FILE).exists, timeout_s=20.0, poll_s=0.01):
            RecordFiles(folder).on_event(RunEvent(kind=kind, text=text, step=7, at_unix_s=time.time()))

    threading.Thread(target=answer, daemon=True).start()


def test_the_run_reads_what_was_asked_for(tmp_path: Path) -> None:
    assert steer(tmp_path, "--micro-sequences", "2", "--checkpoint-now", "--wait-s", "0").exit_code == 0
    request = ControlFile(tmp_path, not_before_unix_s=0.0).poll()
    assert isinstance(request, ControlRequest)
    assert (request.micro_sequences, request.checkpoint_now, request.ramp_held) == (2, True, None)


def test_a_ramp_is_held_and_released(tmp_path: Path) -> None:
    for option, expected in (("--hold-ramp", True), ("--release-ramp", False)):
        steer(tmp_path, option, "--wait-s", "0")
        assert json.loads((tmp_path / CONTROL_FILE).read_text())["ramp_held"] is expected


def test_the_runs_answer_is_told(tmp_path: Path) -> None:
    answer_with(tmp_path, "micro_batch_changed", "micro-batch 4 -> 2 after 0.5 s")
    assert steer(tmp_path, "--micro-sequences", "2").output == "step 7: micro-batch 4 -> 2 after 0.5 s\n"


def test_a_refusal_is_an_error_in_the_runs_words(tmp_path: Path) -> None:
    answer_with(tmp_path, "micro_batch_refused", "micro_sequences = 3: must divide 8")
    done = steer(tmp_path, "--micro-sequences", "3")
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "micro_sequences = 3: must divide 8"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        pytest.param((), ConfigError, "say what to change", id="nothing-asked"),
        pytest.param(("--checkpoint-now", "--wait-s", "0.1"), Unavailable, "did not answer within", id="no-answer"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: tuple[str, ...], error: type[TrainingError], words: str, tmp_path: Path
) -> None:
    done = steer(tmp_path, *arguments)
    assert isinstance(done.exception, error)
    assert words in str(done.exception)
