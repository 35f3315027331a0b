"""slurm-power-serve run: what every rank of a serving job starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from job_wrappers.serving.engine.config import EngineConfig, ModelSpec
from job_wrappers.serving.errors import ConfigError
from job_wrappers.training.launch import thread_variables
from job_wrappers.training.local_ranks import run_local_ranks
from job_wrappers.training.place import LOCAL_VARIABLE, RankPlace, place_from

_GIB = 1024**3
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("model", metavar="MODEL", type=_FOLDER)
@click.option("--also", multiple=True, type=_FOLDER, help="A model that can be switched to; may be repeated.")
@click.option("--served-model-name", help="The name clients use for whichever model is active.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: reachable from other nodes.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0: any that is free.")
@click.option("--unix-socket", type=click.Path(path_type=Path), help="For steering; default: beside the endpoint file.")
@click.option("--admin-token-file", type=click.Path(path_type=Path), help="Allow steering over HTTP with this token.")
@click.option("--tensor-parallel", type=click.IntRange(1), default=1, show_default=True)
@click.option("--pipeline-parallel", type=click.IntRange(1), default=1, show_default=True)
@click.option("--local-ranks", is_flag=True, help="Start the ranks on this machine, without srun.")
@click.option("--dtype", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--attention", default="auto", show_default=True, help="The back-end; auto: the fastest that runs here.")
@click.option("--block-tokens", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option("--memory-gib", type=click.FloatRange(min=0, min_open=True), help="Of each rank, everything together.")
@click.option("--swap-gib", type=click.FloatRange(0), default=1.0, show_default=True, help="Host memory to swap to.")
@click.option("--max-model-len", type=click.IntRange(2), help="Longest sequence; default: the model's own.")
@click.option("--max-num-seqs", type=click.IntRange(1), default=128, show_default=True, help="Run at the same time.")
@click.option("--max-batched-tokens", type=click.IntRange(1), help="Of one iteration.")
@click.option("--max-waiting", type=click.IntRange(1), default=1024, show_default=True, help="Then 429.")
@click.option("--preemption", type=click.Choice(["auto", "swap", "recompute"]), default="auto", show_default=True)
@click.option("--no-prefix-cache", is_flag=True, help="Do not look for the start of a prompt among earlier ones.")
@click.option("--after-switch", type=click.Choice(["sleep", "free"]), default="sleep", show_default=True)
@click.option("--slo-ttft-ms", type=click.FloatRange(min=0, min_open=True), help="What slack is reckoned against.")
@click.option("--slo-tbt-ms", type=click.FloatRange(min=0, min_open=True), help="The same, between tokens.")
@click.option("--drain-s", type=click.FloatRange(0), default=25.0, show_default=True, help="Below Slurm's KillWait.")
@click.option("--check-invariants", is_flag=True, help="Check the cache's books after each iteration. Slow.")
@click.option("--rendezvous-timeout-s", type=click.FloatRange(1.0), default=300.0, show_default=True)
def run(
    model: Path,
    also: tuple[Path, ...],
    served_model_name: str | None,
    host: str,
    port: int,
    unix_socket: Path | None,
    admin_token_file: Path | None,
    tensor_parallel: int,
    pipeline_parallel: int,
    local_ranks: bool,
    dtype: str,
    attention: str,
    block_tokens: int,
    memory_gib: float | None,
    swap_gib: float,
    max_model_len: int | None,
    max_num_seqs: int,
    max_batched_tokens: int | None,
    max_waiting: int,
    preemption: str,
    no_prefix_cache: bool,
    after_switch: str,
    slo_ttft_ms: float | None,
    slo_tbt_ms: float | None,
    drain_s: float,
    check_invariants: bool,
    rendezvous_timeout_s: float,
) -> None:
    """Serve MODEL, a Hugging Face folder, until SIGTERM or SIGUSR1; running requests may end within --drain-s.

    SIGTERM ends with 0. SIGUSR1 (as of `#SBATCH --signal=USR1@60`) ends with 75, and Slurm starts the job again.

    With several ranks: `srun --kill-on-bad-exit=1 slurm-power-serve MODEL --tensor-parallel 4`.
    """
    config = EngineConfig(
        models=tuple(ModelSpec(name=folder.resolve().name, path=folder.resolve()) for folder in (model, *also)),
        public_name=served_model_name,
        dtype=dtype,  # type: ignore[arg-type]
        attention=attention,
        block_tokens=block_tokens,
        memory_bytes=None if memory_gib is None else int(memory_gib * _GIB),
        swap_bytes=int(swap_gib * _GIB),
        max_num_seqs=max_num_seqs,
        max_batched_tokens=max_batched_tokens,
        max_model_len=max_model_len,
        max_waiting=max_waiting,
        preemption=preemption,  # type: ignore[arg-type]
        prefix_caching=not no_prefix_cache,
        after_switch=after_switch,  # type: ignore[arg-type]
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        slo_ttft_s=None if slo_ttft_ms is None else slo_ttft_ms / 1000,
        slo_tbt_s=None if slo_tbt_ms is None else slo_tbt_ms / 1000,
        check_invariants=check_invariants,
    )
    if local_ranks and config.world_size > 1 and LOCAL_VARIABLE not in os.environ:
        command = [sys.executable, "-m", "job_wrappers.serve", *sys.argv[1:]]
        sys.exit(run_local_ranks(config.world_size, command))
    place = place_from(os.environ) if config.world_size > 1 or _is_rank(os.environ) else RankPlace()
    if place.world_size != config.world_size:
        raise ConfigError(
            f"--tensor-parallel {tensor_parallel} x --pipeline-parallel {pipeline_parallel} needs {config.world_size} "
            f"ranks, there are {place.world_size}: start them with srun, or with --local-ranks"
        )
    os.environ.update(thread_variables(place, os.environ))  # read when torch is loaded
    from job_wrappers.serving.launch.run_rank import ServeLaunch, run_rank

    sys.exit(
        run_rank(
            ServeLaunch(
                engine=config,
                place=place,
                host=host,
                port=port,
                unix_socket=unix_socket,
                admin_token_file=admin_token_file,
                drain_s=drain_s,
                rendezvous_timeout_s=rendezvous_timeout_s,
            )
        )
    )


def _is_rank(environ: Mapping[str, str]) -> bool:
    return LOCAL_VARIABLE in environ or environ.get("SLURM_STEP_ID", "").isdigit()
