"""slurm-power-train run: what every rank of a job step starts."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from job_wrappers.training.launch import Launch, run_rank
from job_wrappers.training.local_ranks import run_local_ranks
from job_wrappers.training.overrides import read_config_with
from job_wrappers.training.place import LOCAL_VARIABLE, RankPlace, place_from, restart_count
from training.errors import ConfigError

_LET_RANK_0_SPEAK_S = 5.0


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--parallel",
    envvar="SLURM_POWER_TRAIN_PARALLEL",
    help="Another plan than the config's, as pipeline=2,tensor=1,data=4; what is not named stays.",
)
@click.option("--parallel-after-requeue", help="The same, from the first requeue on.")
@click.option("--set", "settings", multiple=True, help="Another value, as optimizer.steps=100; may be repeated.")
@click.option("--fresh", is_flag=True, help="Start anew at the first start, though there is a checkpoint.")
@click.option("--local-ranks", type=click.IntRange(1), help="So many ranks on this machine, without Slurm.")
@click.option(
    "--clocks",
    help="Slower SM clocks where a pipeline stage waits: 1980,1500 (MHz by stage), FILE.csv:WATTS (a profile in Zeus' "
    "form, and the draw of a waiting GPU), or emulated.",
)
@click.option("--rendezvous-timeout-s", type=click.FloatRange(1.0), default=300.0, show_default=True)
def run(
    config_path: Path,
    parallel: str | None,
    parallel_after_requeue: str | None,
    settings: tuple[str, ...],
    fresh: bool,
    local_ranks: int | None,
    clocks: str | None,
    rendezvous_timeout_s: float,
) -> None:
    """Train as CONFIG says; start it on every rank, with `srun --kill-on-bad-exit=1 slurm-power-train run CONFIG`.

    It goes on from the newest checkpoint. On SIGUSR1 or SIGTERM it saves and ends with 75, which Slurm requeues
    (RequeueExit=75 in slurm.conf).
    """
    starts_ranks = local_ranks is not None and LOCAL_VARIABLE not in os.environ
    place = RankPlace(world_size=local_ranks or 1) if starts_ranks else place_from(os.environ)
    restarts = restart_count(os.environ)
    try:
        wanted = parallel_after_requeue if restarts and parallel_after_requeue is not None else parallel
        config = read_config_with(config_path, parallel=wanted, settings=settings)
        launch = Launch.checked(
            config,
            place,
            fresh=fresh and restarts == 0,
            clocks=clocks,
            rendezvous_timeout_s=rendezvous_timeout_s,
        )
    except ConfigError:
        if place.rank != 0:  # all read the same: rank 0 says it, and srun ends the others before they say it too
            time.sleep(_LET_RANK_0_SPEAK_S)
        raise
    if starts_ranks:
        sys.exit(run_local_ranks(place.world_size, [sys.executable, "-m", "job_wrappers.train", *sys.argv[1:]]))
    run_rank(launch)
