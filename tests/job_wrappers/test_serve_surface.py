"""slurm-power-serve's own surface: fast help, one line for what is wrong, the frozen commands and options."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from job_wrappers.serve import COMMANDS, serve
from job_wrappers.serving.errors import ConfigError

STEERING = "--job --unix-socket --url --token-file --json"
SURFACE = {
    "run": (
        "MODEL --also --served-model-name --host --port --unix-socket --admin-token-file --tensor-parallel "
        "--pipeline-parallel --local-ranks --dtype --attention --block-tokens --memory-gib --swap-gib --max-model-len "
        "--max-num-seqs --max-batched-tokens --max-waiting --preemption --no-prefix-cache --after-switch "
        "--slo-ttft-ms --slo-tbt-ms --drain-s --check-invariants --rendezvous-timeout-s"
    ),
    "steer": STEERING,
    "steer status": "",
    "steer limits": "--max-num-seqs --max-batched-tokens",
    "steer model": "NAME",
    "steer sleep": "",
    "steer wake": "",
    "steer clock": "MHZ",
    "steer drain": "",
    "bench": (
        "--job --url --trace --speed --requests --rate --prompt-tokens --new-tokens --concurrency --priority --seed "
        "--plot --json"
    ),
}


def everything() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, target in COMMANDS.items():
        module, _, function = target.partition(":")
        command: click.Command = getattr(import_module(module), function)
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {below}": child for below, child in command.commands.items()}
    return found


def words(command: click.Command) -> set[str]:
    found: set[str] = set()
    for one in command.params:
        found |= set(one.opts) if isinstance(one, click.Option) else {(one.name or "").upper()}
    return found


def test_the_commands_are_the_frozen_ones() -> None:
    assert set(everything()) == set(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_a_command_has_its_frozen_options_and_says_what_it_does(name: str) -> None:
    command = everything()[name]
    assert words(command) == set(SURFACE[name].split())
    assert command.help


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["steer", "--help"], ["bench", "--help"]])
def test_help_imports_neither_torch_nor_matplotlib(argv: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['slurm-power-serve', *{argv!r}]; import job_wrappers.serve as s\n"
        "try: s.main()\n"
        "except SystemExit: print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_model_alone_means_run_it(tmp_path: Path) -> None:
    for argv in ([str(tmp_path)], ["run", str(tmp_path)]):
        done = CliRunner().invoke(serve, [*argv, "--tensor-parallel", "2"])
        assert isinstance(done.exception, ConfigError)
        assert "needs 2 ranks, there are 1: start them with srun, or with --local-ranks" in str(done.exception)


def test_a_folder_that_is_not_there_is_wrong_usage() -> None:
    done = CliRunner().invoke(serve, ["no-such-model"])
    assert (done.exit_code, "'no-such-model' does not exist" in done.output) == (2, True)


def test_more_tasks_than_ranks_are_refused_before_they_serve_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "n1",
        "SLURM_STEP_TASKS_PER_NODE": "2",
    }
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(serve, [str(tmp_path)])
    assert "needs 1 ranks, there are 2" in str(done.exception)


def test_steering_finds_no_server_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_POWER_SERVE_DIR", str(tmp_path))
    done = CliRunner().invoke(serve, ["steer", "status"])
    assert isinstance(done.exception, ConfigError)
    assert "knows none; name one with --job, --url or --unix-socket" in str(done.exception)


def test_steering_over_http_needs_a_token() -> None:
    done = CliRunner().invoke(serve, ["steer", "--url", "http://127.0.0.1:9", "status"])
    assert str(done.exception) == "--url needs --token-file"
