"""slurm-power-train: start a training on the ranks of a job, prepare for it, steer it, and see what it did.

Each command lives in a module of its own and is loaded when it is called; torch is imported by those that train.
"""

from __future__ import annotations

import logging
import sys

import click

from slurm_power.cli.lazy import LazyCommands
from slurm_power.errors import SlurmPowerError
from training.errors import TrainingError

COMMANDS = {
    "run": "job_wrappers.training.command_run:run",
    "prepare": "job_wrappers.training.command_prepare:prepare",
    "plan": "job_wrappers.training.command_plan:plan",
    "report": "job_wrappers.training.command_report:report",
    "steer": "job_wrappers.training.command_steer:steer",
    "export": "job_wrappers.training.command_export:export",
    "example-config": "job_wrappers.training.command_example_config:example_config",
    "precision": "job_wrappers.training.command_precision:precision",
}


@click.group(cls=LazyCommands, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Say more about what happens.")
def train(verbose: bool) -> None:
    """Train language models from sbatch, inside the site's power promise.

    Exit codes: 0 done, 75 saved on a power signal: start me again, 2 wrong usage, 3 a config or option to mend,
    5 a value is not finite or a save failed, 6 a rank is gone or something did not answer.
    """
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="slurm-power-train: %(message)s", stream=sys.stderr)


def main() -> None:
    try:
        train.main(prog_name="slurm-power-train")
    except (TrainingError, SlurmPowerError) as error:
        click.echo(f"slurm-power-train: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
