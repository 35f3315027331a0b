"""slurm-power-serve: serve a language model from sbatch, and steer it while it serves.

Each command lives in a module of its own and is loaded when it is called; torch is imported by the one that serves.
"""

from __future__ import annotations

import logging
import sys

import click

from job_wrappers.serving.errors import ServingError
from job_wrappers.training.say import speak_as
from slurm_power.cli.lazy import LazyCommands
from slurm_power.errors import SlurmPowerError
from training.errors import TrainingError

COMMANDS = {
    "run": "job_wrappers.serving.launch.command_run:run",
    "steer": "job_wrappers.serving.launch.command_steer:steer",
    "bench": "job_wrappers.serving.launch.command_bench:bench",
}


class ModelOrCommand(LazyCommands):
    """`slurm-power-serve FOLDER ...` is `slurm-power-serve run FOLDER ...`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.places and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=ModelOrCommand, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Say more about what happens.")
def serve(verbose: bool) -> None:
    """Serve a language model with the OpenAI API, inside the site's power promise.

    `slurm-power-serve MODEL` is short for `slurm-power-serve run MODEL`.

    Exit codes: 0 done, 75 ended by SIGUSR1: start me again, 2 wrong usage, 3 a config or option to mend, or a model
    that does not fit, 5 a server said no, 6 a rank is gone or something did not answer.
    """
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="slurm-power-serve: %(message)s", stream=sys.stderr)


def main() -> None:
    speak_as("slurm-power-serve")
    try:
        serve.main(prog_name="slurm-power-serve")
    except (ServingError, SlurmPowerError, TrainingError) as error:
        click.echo(f"slurm-power-serve: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
