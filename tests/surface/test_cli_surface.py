"""The commands and their options are one frozen list: scripts rely on them. Change it on purpose or not at all."""

from __future__ import annotations

from importlib import import_module

import click
import pytest

from slurm_power.cli.agent import agent
from slurm_power.cli.main import COMMANDS, slurm_power
from slurm_power.cli.pool import pool
from slurm_power.cli.powerd import powerd

ASKING = "--config --json --url"
ADMIN = f"{ASKING} --token-file --why"
SURFACE = {
    "slurm-power": "--version",
    "slurm-power status": f"{ASKING} --gpus",
    "slurm-power bill": "--load --tariff --tz --unit --column --scale --from --to --json",
    "slurm-power forecast": "",
    "slurm-power forecast backtest": "LOAD_FILE --days --column --unit --slot-min --tz --tariff --battery --json",
    "slurm-power replay": "",
    "slurm-power replay load": "LOAD_FILE --tariff --tz --unit --column --scale --from --battery --hours --efficiency"
    " --plot --json",
    "slurm-power replay jobs": "TRACE_FILE --format --gpus --gpus-per-node --load --gpu-watts --node-watts --limit-kw"
    " --days --json",
    "slurm-power llm": "",
    "slurm-power llm simulate": "--trace --policies --profile --scale --week --servers --predictor-right --intensity"
    " --gpu-hour-price --seed --plot --json",
    "slurm-power llm pools": ASKING,
    "slurm-power llm budget": f"POOL {ASKING} --watts --for --off",
    "slurm-power profile": "",
    "slurm-power profile serve": "MODEL SERVE_OPTIONS --output -o --clocks --batches --contexts --prompts --new-tokens"
    " --gpus --gpus-per-server --name --json",
    "slurm-power plan": ASKING,
    "slurm-power jobs": ASKING,
    "slurm-power jobs energy": ("--config --user --account --job --since --until --by --attempts --check --json --csv"),
    "slurm-power report": "",
    "slurm-power report sla": "--job --node --account --since --until --thresholds --config --json --out --html --plots"
    " --sign",
    "slurm-power report job": "JOB_ID --since --until --thresholds --config --json --out --sign --html --plots",
    "slurm-power report site": "--since --until --config --json --out --sign --html",
    "slurm-power report verify": "REPORT_FILE SIGNATURE_FILE --key --samples --config",
    "slurm-power report keygen": "SECRET_FILE",
    "slurm-power jobs write-back": "JOB_ID --config --to --since --until --wait --dry-run",
    "slurm-power ess": ASKING,
    "slurm-power telemetry": "",
    "slurm-power telemetry check": "--config --json",
    "slurm-power telemetry prune": "--config --json",
    "slurm-power hold": f"{ADMIN} --for --off",
    "slurm-power observe": f"{ADMIN} --off",
    "slurm-power target": f"WATTS {ADMIN} --for --clear",
    "slurm-power release": "--config --dry-run --json",
    "slurm-power config": "",
    "slurm-power config check": "FILE --json",
    "slurm-power config explain": "FILE --json",
    "slurm-power cluster": "",
    "slurm-power cluster up": "--dir --nodes --gpus-per-node --fresh --power --no-power --json",
    "slurm-power cluster down": "--dir --json",
    "slurm-power cluster status": "--dir --json",
    "slurm-power cluster logs": "DAEMON --dir --follow -f --lines -n",
    "slurm-power demo": "--load --load-day --store --seed --day-s --dir --json",
    "slurm-powerd": "--config --observe --verbose -v",
    "slurm-power-agent": "--config --node --monitor-only --verbose -v",
    "slurm-power-pool": "--config --layers --verbose -v",
}
ENVIRONMENT = {
    "config_path": "SLURM_POWER_CONFIG",
    "pool_config": "SLURM_POWER_POOL_CONFIG",
    "file": "SLURM_POWER_CONFIG",
    "url": "SLURM_POWER_URL",
    "token_file": "SLURM_POWER_TOKEN_FILE",
}
"""Parameter -> the variable that stands for it, in every command that has the parameter."""


def words(command: click.Command) -> set[str]:
    found = set()
    for one in command.params:
        found |= {*one.opts, *one.secondary_opts} if isinstance(one, click.Option) else {(one.name or "").upper()}
    return found


def commands(command: click.Command, name: str) -> dict[str, click.Command]:
    found = {name: command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            found |= commands(child, f"{name} {below}")
    return found


EVERYTHING = {
    **commands(slurm_power, "slurm-power"),
    **commands(powerd, "slurm-powerd"),
    **commands(agent, "slurm-power-agent"),
    **commands(pool, "slurm-power-pool"),
}


def test_the_commands_are_the_frozen_ones() -> None:
    assert set(EVERYTHING) == set(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_a_command_has_its_frozen_options(name: str) -> None:
    assert words(EVERYTHING[name]) == set(SURFACE[name].split())


@pytest.mark.parametrize("name", SURFACE)
def test_a_variable_stands_for_the_same_option_everywhere(name: str) -> None:
    parameters = {one.name or "": one.envvar for one in EVERYTHING[name].params}
    assert {key: value for key, value in parameters.items() if value or key in ENVIRONMENT} == {
        key: ENVIRONMENT[key] for key in parameters if key in ENVIRONMENT
    }


@pytest.mark.parametrize("name", SURFACE)
def test_every_command_says_what_it_does(name: str) -> None:
    assert EVERYTHING[name].help


@pytest.mark.parametrize("target", COMMANDS.values())
def test_a_command_is_found_where_the_list_says(target: str) -> None:
    module, _, name = target.partition(":")
    assert isinstance(getattr(import_module(module), name), click.Command)
