"""slurm-power-train's own surface: fast help, one line for what is wrong, the frozen commands and options."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from job_wrappers.train import COMMANDS, train
from training.errors import ConfigError
from training.precision import DIAGRAM, describe

SURFACE = {
    "run": (
        "CONFIG_PATH --parallel --parallel-after-requeue --set --fresh --local-ranks --clocks --rendezvous-timeout-s"
    ),
    "prepare": "FILES --out --tokenizer --pattern",
    "plan": "MODEL --gpus --hardware --global-sequences --sequence-length --precision --by --top --clocks --json",
    "report": "RUN --html --json",
    "steer": "RUN --micro-sequences --checkpoint-now --hold-ramp --wait-s",
    "export": "RUN OUT --dtype",
    "example-config": "",
    "precision": "--policy --json",
}


def options(name: str) -> set[str]:
    module, _, function = COMMANDS[name].partition(":")
    command: click.Command = getattr(import_module(module), function)
    assert command.help, f"{name} does not say what it does"
    found: set[str] = set()
    for one in command.params:
        found |= set(one.opts) if isinstance(one, click.Option) else {(one.name or "").upper()}
    return found


def test_the_commands_are_the_frozen_ones() -> None:
    assert set(COMMANDS) == set(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_a_command_has_its_frozen_options(name: str) -> None:
    assert options(name) == set(SURFACE[name].split())


def test_help_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; sys.argv = ['slurm-power-train', '--help']; import job_wrappers.train as t\n"
        "try: t.main()\nexcept SystemExit: print([m for m in ('torch', 'deepspeed', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Train language models" in done.stdout


def test_the_precision_table_is_printed_as_it_is() -> None:
    assert CliRunner().invoke(train, ["precision"]).output.strip() == describe().strip()
    table = json.loads(CliRunner().invoke(train, ["precision", "--json", "--policy", "bf16"]).output)
    assert set(table) == set(DIAGRAM)
    assert table["moe.expert"]["compute"] == "bf16"


def test_plans_are_ranked_and_the_refused_are_explained() -> None:
    common = ["plan", "tiny-v3", "--gpus", "4", "--global-sequences", "8", "--sequence-length", "128"]
    found = json.loads(CliRunner().invoke(train, [*common, "--top", "3", "--json"]).output)
    assert len(found["best"]) == 3
    times_s = [plan["step_s"] for plan in found["best"]]
    assert times_s == sorted(times_s)
    for plan in found["best"]:
        cut = plan["plan"]
        assert cut["pipeline"] * cut["tensor"] * cut["data"] == 4
    assert found["feasible"] < found["tried"]
    assert found["refused"]
    assert "clocks (one clock a rank)" in CliRunner().invoke(train, [*common, "--clocks"]).output


def test_an_unknown_model_is_one_clear_line() -> None:
    done = CliRunner().invoke(train, ["plan", "nope", "--gpus", "4"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("model = nope: must be one of tiny-v3, ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["plan", "nope", "--gpus", "4"], 3),
        (["report", "nowhere"], 3),
        (["plan", "tiny-v3"], 2),
        (["prepare", "/nowhere", "--out", "x"], 3),
    ],
)
def test_errors_end_with_their_exit_code_and_one_line(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "job_wrappers.train", *arguments],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == code
    if code == 3:
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("slurm-power-train: ")


def test_text_becomes_a_dataset_with_a_line_that_says_how_much(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    done = CliRunner().invoke(train, ["prepare", str(tmp_path / "a.txt"), "--out", str(tmp_path / "data")])
    assert done.output == f"{tmp_path / 'data'}: 1 documents, 10 tokens of 257 kinds, tokenizer bytes\n"
