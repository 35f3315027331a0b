"""A small MoE + MLA + MTP model trains on real text, from sbatch, over two nodes of a real Slurm, under a power cap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from slurm_power.testing.cluster import DevCluster  # noqa: E402
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode  # noqa: E402
from slurm_power.testing.processes import wait_for  # noqa: E402
from tests.cluster.agents import agents_on  # noqa: E402
from tests.cluster.ranks import kill_rank  # noqa: E402
from training.run.config_text import example_config  # noqa: E402
from training.run.listener import StepRecord  # noqa: E402
from training.run.records import read_steps  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

TRAIN = Path(__file__).resolve().parents[2] / "etc" / "examples" / "train.sbatch"
NODES = ("n1", "n2")
SMALLER = ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1", "--time=10")
CAP_WATTS = 300.0
STEPS, SAVED_AFTER = 14, 5
TOLERANCE = 2e-3
"""Relative: FP8 gradients are rounded where the batch is cut, and another plan cuts it elsewhere."""

START_S, RUN_S = 240.0, 400.0
ENVIRONMENT = {"SLURM_POWER_EMULATED_LOAD": "1", "OMP_NUM_THREADS": "1"}


class Workplace:
    """A folder in the cluster's job folder, with a dataset of the standard library's sources and a config."""

    def __init__(self, slurm: DevCluster) -> None:
        self.slurm = slurm
        self.folder = slurm.layout.jobs / "training"
        self.folder.mkdir()
        sources = Path(sysconfig.get_paths()["stdlib"])
        self.command("prepare", str(sources / "json"), str(sources / "asyncio"), "--pattern=*.py", "--out=data/train")
        (self.folder / "train.toml").write_text(example_config())

    def settings(self, run: str) -> list[str]:
        values = {
            "run.folder": f"runs/{run}",
            "optimizer.steps": STEPS,
            "optimizer.warmup_steps": 2,
            "data.sequence_length": 128,
            "data.evaluate_every_steps": STEPS,
            "batch.global_sequences": 8,
            "batch.micro_sequences": 2,
            "checkpoint.every_steps": 100,
            "run.watchdog_s": 120,
        }
        return [f"--set={key}={value}" for key, value in values.items()]

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "job_wrappers.train", *arguments],
            cwd=self.folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            timeout=RUN_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, run: str, *arguments: str, options: tuple[str, ...] = ()) -> int:
        argv = ["sbatch", "--parsable", f"--chdir={self.folder}", *SMALLER, *options, str(TRAIN), "train.toml"]
        output = f"--output={self.slurm.layout.jobs}/slurm-%j.out"
        argv.insert(2, output)
        done = self.slurm.run(*argv, *self.settings(run), *arguments, environment=ENVIRONMENT)
        return int(done.stdout)

    def steps(self, run: str) -> list[StepRecord]:
        return read_steps(self.folder / "runs" / run)

    def await_step(self, job_id: int, run: str, step: int) -> None:
        def reached() -> bool:
            return len(self.steps(run)) >= step

        assert wait_for(reached, timeout_s=START_S, poll_s=0.1), self.slurm.job_output(job_id)


@pytest.fixture
def work(slurm: DevCluster) -> Iterator[Workplace]:
    with agents_on(slurm, NODES):
        made = Workplace(slurm)
        yield made
    shutil.rmtree(made.folder)


def caps(slurm: DevCluster) -> list[float]:
    found = []
    for name in NODES:
        with EmulatedNode.open(slurm.gpu_state(name)) as node:
            found += [node.gpu_cap_watts(node.uuid_of_minor(minor)) for minor in range(2)]
    return found


def losses(steps: list[StepRecord]) -> dict[int, float]:
    return {step.step: step.loss for step in steps}


def test_a_capped_training_is_saved_by_a_power_signal_requeued_and_goes_on_under_another_plan(work: Workplace) -> None:
    slurm = work.slurm
    job_id = work.submit(
        "a",
        "--parallel=pipeline=2,data=2,expert=2",
        "--parallel-after-requeue=pipeline=1,data=4,expert=4",
        options=(f"--gpu-power-cap={CAP_WATTS:.0f}",),
    )
    work.await_step(job_id, "a", SAVED_AFTER)
    assert caps(slurm) == [CAP_WATTS] * 4
    slurm.run("scancel", "--signal=USR1", str(job_id))

    facts = slurm.wait_for_job(job_id, "COMPLETED", "FAILED", timeout_s=RUN_S)
    output = slurm.job_output(job_id)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), output
    assert "SIGUSR1 on rank 0" in output

    steps = work.steps("a")
    assert [step.step for step in steps] == list(range(1, STEPS + 1)), "the curve has no gap and no step twice"
    work.command("run", "train.toml", "--local-ranks=1", *work.settings("uninterrupted"))
    assert losses(steps) == pytest.approx(losses(work.steps("uninterrupted")), rel=TOLERANCE)
    assert steps[-1].loss < steps[0].loss

    assert_reported(json.loads(work.command("report", str(job_id), "--json")))
    assert (work.folder / "runs" / "a" / "report.html").exists()
    assert_transformers_reads(work, held_out_loss=steps[-1].held_out_loss)


def assert_reported(report: dict[str, Any]) -> None:
    first, second = report["attempts"]
    assert (first["exit_code"], second["exit_code"]) == (75, 0)
    assert (first["plan"]["pipeline"], second["plan"]["pipeline"]) == (2, 1)
    for attempt in (first, second):
        assert attempt["used_joules"] > 0
        # Four GPUs, each between idle and its cap.
        assert 4 * 70.0 < attempt["mean_watts"] <= 4 * CAP_WATTS
    assert report["joules_per_token"] > 0


def assert_transformers_reads(work: Workplace, *, held_out_loss: float | None) -> None:
    """In a process of its own: it brings much along."""
    work.command("export", "runs/a", "hf")
    code = (
        "import torch, transformers; model = transformers.AutoModelForCausalLM.from_pretrained('hf'); "
        "ids = torch.frombuffer(bytearray(open('train.toml', 'rb').read()[:256]), dtype=torch.uint8).long()[None]; "
        "print(type(model).__name__, float(model(ids, labels=ids).loss))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=work.folder, capture_output=True, text=True,
        timeout=RUN_S, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    name, loss = done.stdout.split()
    assert name == "DeepseekV3ForCausalLM"
    assert held_out_loss is not None
    # Another text, and without the MTP part of our loss; an untrained model says ln 512 = 6.24.
    assert float(loss) < held_out_loss


def test_a_killed_rank_ends_the_job_with_a_line_that_names_it(work: Workplace) -> None:
    slurm = work.slurm
    job_id = work.submit("b", "--parallel=pipeline=2,data=2,expert=2")
    work.await_step(job_id, "b", 1)
    rank_3 = kill_rank(slurm, job_id, 3, program="slurm-power-train")
    facts = slurm.wait_for_job(job_id, "FAILED", "COMPLETED", timeout_s=60.0)
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")
    assert f"slurm-power-train: rank 3 (n2, pid {rank_3}) is gone\n" in slurm.job_output(job_id)


def test_a_bad_config_is_one_line_and_the_job_ends_at_once(work: Workplace) -> None:
    slurm = work.slurm
    job_id = work.submit("c", "--parallel=pipeline=3")
    facts = slurm.wait_for_job(job_id, "FAILED", "COMPLETED", timeout_s=60.0)
    assert (facts["JobState"], facts["Restarts"]) == ("FAILED", "0")
    lines = {line for line in slurm.job_output(job_id).splitlines() if line.startswith("slurm-power-train: ")}
    assert len(lines) == 1
    assert "[parallel] pipeline x tensor = 3: there are 4 ranks" in lines.pop()
