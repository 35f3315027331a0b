"""slurm-power-train run as a program, with ranks of its own: how it ends, and what it leaves in the run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from job_wrappers.training.attempts import read_attempts
from slurm_power.testing.processes import wait_for
from training.data.prepare import prepare
from training.run.config_text import example_config
from training.run.records import read_steps

pytestmark = pytest.mark.torch

WAIT_S = 240.0
SETTINGS = {
    "precision.policy": "bf16",
    "data.sequence_length": 64,
    "data.held_out_fraction": 0,
    "batch.global_sequences": 4,
    "batch.micro_sequences": 1,
    "optimizer.warmup_steps": 1,
    "run.folder": "runs/a",
    "run.watchdog_s": 120,
}


class Place:
    """A folder with a small dataset and a config, and the program that trains in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "runs" / "a"
        prepare([Path(__file__)], folder / "data" / "train")
        (folder / "train.toml").write_text(example_config())
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, steps: int) -> subprocess.Popen[str]:
        settings = [f"--set={key}={value}" for key, value in {**SETTINGS, "optimizer.steps": steps}.items()]
        argv = [sys.executable, "-m", "job_wrappers.train", "run", "train.toml", *settings, *arguments]
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SLURM")}
        process = subprocess.Popen(
            argv, cwd=self.folder, env=environment | {"OMP_NUM_THREADS": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def steps(self) -> list[int]:
        return [step.step for step in read_steps(self.run)]

    def await_step(self, process: subprocess.Popen[str], step: int) -> None:
        assert wait_for(lambda: len(self.steps()) >= step or process.poll() is not None, timeout_s=WAIT_S)
        assert process.poll() is None, process.communicate()[0]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.processes:
        for pid in children_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output = process.communicate(timeout=WAIT_S)[0]
    return process.returncode, output


def test_a_signal_saves_and_ends_with_75_and_the_next_start_goes_on_with_other_ranks(place: Place) -> None:
    first = place.start("--local-ranks=2", "--parallel=pipeline=2", steps=10_000)
    place.await_step(first, 2)
    first.send_signal(signal.SIGUSR1)
    code, output = ended(first)
    assert (code, "SIGUSR1 on rank 0" in output) == (75, True), output
    done = place.steps()[-1]

    code, output = ended(place.start("--local-ranks=1", steps=done + 2))
    assert code == 0, output
    assert place.steps() == list(range(1, done + 3))
    before, after = read_attempts(place.run)
    assert before.end is not None
    assert after.end is not None
    assert (before.end.exit_code, after.end.exit_code) == (75, 0)
    assert (before.begin.plan["pipeline"], after.begin.plan["pipeline"]) == (2, 1)
    assert after.begin.resumed_from_step == done
    assert after.end.used_joules is None, "without a GPU the energy is unknown, not zero"
    assert (place.run / "report.html").exists()


def test_a_killed_rank_is_named_and_nobody_hangs(place: Place) -> None:
    process = place.start("--local-ranks=2", "--parallel=data=2", steps=10_000)
    place.await_step(process, 1)
    os.kill(children_of(process.pid)[1], signal.SIGKILL)
    code, output = ended(process)
    assert code == 6
    lines = [line for line in output.splitlines() if line.endswith(" is gone")]
    assert len(lines) == 1, output
    assert lines[0].startswith("slurm-power-train: rank 1 (localhost, pid ")
    (attempt,) = read_attempts(place.run)
    assert attempt.end is not None
    assert (attempt.end.exit_code, attempt.end.reason) == (6, lines[0].removeprefix("slurm-power-train: "))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        pytest.param("parallel.tensor=3", "[parallel] pipeline x tensor = 3: there are 2 ranks", id="plan"),
        pytest.param("data.dataset=nowhere", "nowhere", id="dataset"),
        pytest.param("optimizer.kind=adam", '[optimizer] kind = \'adam\': must be one of "adamw", "sgd"', id="value"),
    ],
)
def test_a_bad_config_is_one_line_and_exit_code_3(setting: str, words: str, place: Place) -> None:
    code, output = ended(place.start("--local-ranks=2", f"--set={setting}", steps=2))
    assert code == 3, output
    lines = {line for line in output.splitlines() if line.startswith("slurm-power-train: ")}
    assert len(lines) == 1, output
    assert words in lines.pop()
    assert "Traceback" not in output
