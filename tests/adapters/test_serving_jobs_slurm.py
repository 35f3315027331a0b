"""Serving jobs through Slurm's commands: only ours are seen, users' text stays text, endings are gentle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slurm_power.adapters.run_command import CommandResult
from slurm_power.adapters.serving_jobs_slurm import ServingJobShape, SlurmServingJobs
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ports.serving_jobs import ServingJob


class Commands:
    """Answers as told, and keeps what was run."""

    def __init__(self, output: str = "", *, exit_code: int = 0, errors: str = "") -> None:
        self.result = CommandResult(exit_code, output, errors)
        self.ran: list[Sequence[str]] = []
        self.env: Mapping[str, str] = {}

    def __call__(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> CommandResult:
        self.ran.append(argv)
        self.env = env
        return self.result


def jobs_of(commands: Commands, folder: Path) -> SlurmServingJobs:
    shape = ServingJobShape(
        owner="llm", script=Path("/serve.sbatch"), models=("/large", "/small"), served_model_name="chat",
        sbatch_options=("--time=10",), serve_options=("--drain-s=5",), endpoints=folder,
    )  # fmt: skip
    return SlurmServingJobs(shape, SlurmConfig(), run=commands)


def test_only_our_owners_living_jobs_are_seen(tmp_path: Path) -> None:
    lines = [
        "7|RUNNING|n1|1-02:03:04|2-00:00:00|slurm-power-pool.llm.SS.2",
        "8|PENDING||10:00|10:00|slurm-power-pool.llm.LL.4",
        "14|RUNNING|n1|UNLIMITED|UNLIMITED|slurm-power-pool.llm.LL.4",
        "15|RUNNING|n1|INVALID|0:30|slurm-power-pool.llm.LL.4",
        "9|COMPLETING|n1|NOT_SET|UNLIMITED|slurm-power-pool.llm.LL.4",
        "10|RUNNING|n1|NOT_SET|UNLIMITED|slurm-power-pool.other.LL.4",
        "11|RUNNING|n1|NOT_SET|UNLIMITED|slurm-power-pool.llm.LL.4 ; scancel 1",
        "12|RUNNING|n1|NOT_SET|UNLIMITED|x|slurm-power-pool.llm.LL.4",
        "13|RUNNING|n1|NOT_SET|UNLIMITED|slurm-power-pool.llm.LL.0",
        "nonsense",
    ]
    found = jobs_of(Commands("\n".join(lines)), tmp_path).jobs()
    assert found == [
        ServingJob(7, "SS", 2, True, "n1", left_s=93_784.0, limit_s=172_800.0),
        ServingJob(8, "LL", 4, False, "", left_s=600.0, limit_s=600.0),
        ServingJob(14, "LL", 4, True, "n1"),
        ServingJob(15, "LL", 4, True, "n1", limit_s=30.0),
    ]


def test_a_job_is_started_with_its_mark_its_gpus_and_both_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SBATCH_PARTITION", "SLURM_JOB_ID", "SQUEUE_FORMAT"):
        monkeypatch.setenv(name, "another job's")
    commands = Commands("42;cluster\n")
    assert jobs_of(commands, tmp_path).start("SS", gpus=2) == 42
    (argv,) = commands.ran
    assert argv[0] == "sbatch"
    assert {"--job-name=slurm-power-pool.llm.SS.2", "--ntasks=2", "--gpus-per-node=2", "--time=10"} <= set(argv)
    assert argv[argv.index("/serve.sbatch") :] == (
        "/serve.sbatch", "/large", "--also", "/small", "--served-model-name", "chat", "--drain-s=5",
    )  # fmt: skip
    assert commands.env["SLURM_POWER_SERVE_DIR"] == str(tmp_path)
    assert not any(value == "another job's" for value in commands.env.values())


def test_a_job_is_asked_to_end_and_one_that_is_gone_is_no_error(tmp_path: Path) -> None:
    commands = Commands(exit_code=1, errors="scancel: error: Kill job error on job id 7: Invalid job id specified")
    jobs_of(commands, tmp_path).end(7)
    assert commands.ran == [("scancel", "--state=PENDING", "7"), ("scancel", "--signal=TERM", "7")]


@pytest.mark.parametrize(
    ("errors", "error"),
    [("sbatch: error: Invalid partition", DeviceRefused), ("Unable to contact slurm controller", Unavailable)],
)
def test_a_refusal_is_told_from_silence(tmp_path: Path, errors: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        jobs_of(Commands(exit_code=1, errors=errors), tmp_path).start("LL", gpus=1)


def test_endpoints_that_are_no_jobs_or_unreadable_are_left_out(tmp_path: Path) -> None:
    good = {"url": "http://n1:1", "token_file": "/t", "public_name": "chat", "models": ["large"]}
    (tmp_path / "7.json").write_text(json.dumps(good))
    (tmp_path / "pid-9.json").write_text(json.dumps(good))
    (tmp_path / "8.json").write_text("{")
    (tmp_path / "9.json").write_text("[]")
    assert [address.job_id for address in jobs_of(Commands(), tmp_path).addresses()] == [7]
