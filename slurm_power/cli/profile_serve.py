"""slurm-power profile serve: sweeps clock x batch x context with the real server, and fits a profile to what it saw."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slurm_power.adapters.serving_instance_http import HttpServingInstance
from slurm_power.adapters.serving_jobs_slurm import FOLDER_VARIABLE
from slurm_power.adapters.serving_probe import ServingProbe
from slurm_power.errors import ConfigError, SlurmPowerError, Unavailable
from slurm_power.llm.profile_fit import DecodePoint, Measured, PromptPoint, fit_profile, summary
from slurm_power.llm.profile_json import profile_as_json

_START_S, _LOOK_S, _IDLE_S = 1800.0, 0.1, 2.0
_TIMES = 3
"""Each point, of which the median counts: something else may run for a moment."""

_MOST_LISTED = 64


def _numbers(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,4,16`, ascending."""
    words = [word for word in value.split(",") if word]
    if len(words) > _MOST_LISTED or not all(word.isdigit() and 0 < int(word) < 10**7 for word in words):
        raise click.BadParameter(f"{value[:80]!a} is no list of whole numbers above 0, as 1,4,16")
    return tuple(sorted({int(word) for word in words}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    clocks_mhz: tuple[int, ...]
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prompts: tuple[int, ...]
    new_tokens: int

    @property
    def points(self) -> int:
        """Each is measured several times."""
        return max(1, len(self.clocks_mhz)) * len(self.batches) * len(self.contexts) + len(self.prompts)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("serve_options", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The profile, JSON."
)
@click.option("--clocks", default="", callback=_numbers, help="SM clocks in MHz; none: as the GPU runs.")
@click.option("--batches", default="1,4,16,64", show_default=True, callback=_numbers, help="Sequences at a time.")
@click.option("--contexts", default="128,1024", show_default=True, callback=_numbers, help="Tokens of each.")
@click.option("--prompts", default="64,256,1024", show_default=True, callback=_numbers, help="Tokens of one prompt.")
@click.option("--new-tokens", type=click.IntRange(8), default=64, show_default=True, help="Of each answer.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="Tensor parallelism.")
@click.option("--gpus-per-server", type=click.IntRange(1), default=8, show_default=True)
@click.option("--name", help="Of the profile; default: the model's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def serve(
    model: Path,
    serve_options: tuple[str, ...],
    output: Path,
    clocks: tuple[int, ...],
    batches: tuple[int, ...],
    contexts: tuple[int, ...],
    prompts: tuple[int, ...],
    new_tokens: int,
    gpus: int,
    gpus_per_server: int,
    name: str | None,
    as_json: bool,
) -> None:
    """Measure MODEL, a Hugging Face folder, as slurm-power-serve serves it here, and write the profile that fits.

    Clocks are set through the node's agent, so run it in a job: `srun --gpus=1 slurm-power profile serve ...`. What
    follows MODEL goes to `slurm-power-serve run`. One point in four is held out of the fit, and the error printed is
    theirs.
    """
    console = Console(stderr=as_json, highlight=False)
    sweep = Sweep(clocks_mhz=clocks, batches=batches, contexts=contexts, prompts=prompts, new_tokens=new_tokens)
    began_s = time.monotonic()
    options = ["--max-num-seqs", str(max(batches)), "--no-prefix-cache", "--tensor-parallel", str(gpus)]
    with _server(model, [*options, *(["--local-ranks"] if gpus > 1 else []), *serve_options]) as (url, token_file):
        startup_s = time.monotonic() - began_s
        measured = asyncio.run(_measure(url, token_file, sweep, console))
    decodes, told, idle_watts, cache_tokens = measured
    profile = fit_profile(
        Measured(
            name=name or model.resolve().name,
            origin=_origin(model, decodes, measured=sweep.points),
            gpus=gpus,
            gpus_per_server=max(gpus, gpus_per_server),
            decodes=decodes,
            prompts=told,
            idle_watts=idle_watts,
            cache_tokens=cache_tokens,
            startup_s=startup_s,
        )
    )
    try:
        output.write_text(json.dumps(profile_as_json(profile), indent=1) + "\n")
    except OSError as cause:
        raise ConfigError(f"{output}: {cause.strerror}") from cause
    errors = summary(profile)
    if as_json:
        click.echo(json.dumps({"output": str(output), "points": sweep.points, "error_fraction": errors}))
        return
    console.print(f"{sweep.points} points; written to {output}")
    for key, error in errors.items():
        console.print(f"mean error on points held out, {key.removesuffix('_held_out')}: {error:.1%}")
    if not errors:
        console.print("too few points to hold any out: the error of the fit is not known")


async def _measure(
    url: str, token_file: Path, sweep: Sweep, console: Console
) -> tuple[list[DecodePoint], list[PromptPoint], float | None, int]:
    instance = HttpServingInstance(url, token_file)
    probe = ServingProbe(url, instance)
    decodes: list[DecodePoint] = []
    prompts: list[PromptPoint] = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    try:
        status = await instance.status()
        cache_tokens = max(1, status.blocks_total) * 16
        await probe.prompt(sweep.prompts[0])  # the first one warms up
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("idle", total=sweep.points)
            idle_watts = await probe.idle_watts(for_s=_IDLE_S)
            for tokens in sweep.prompts:
                progress.update(task, description=f"prompt of {tokens}")
                told = [await probe.prompt(tokens) for _ in range(_TIMES)]
                prompts.append(sorted(told, key=lambda one: one.seconds)[_TIMES // 2])
                progress.advance(task)
            own_mhz = _boards()[1]
            clocks: Sequence[int | None] = sweep.clocks_mhz[::-1] or (None,)
            for mhz in clocks:
                await _set_clock(instance, mhz)
                for batch, context in product(sweep.batches, sweep.contexts):
                    progress.update(task, description=f"{mhz or 'free'} MHz, batch {batch}, context {context}")
                    seen = [
                        await probe.decode(
                            clock_mhz=mhz or own_mhz, batch=batch, context_tokens=context, new_tokens=sweep.new_tokens
                        )
                        for _ in range(_TIMES)
                    ]
                    decodes.append(sorted(seen, key=lambda one: one.iteration_s)[_TIMES // 2])
                    progress.advance(task)
            await _set_clock(instance, None)
    finally:
        await probe.close()
        await instance.close()
    return decodes, prompts, idle_watts, cache_tokens


async def _set_clock(instance: HttpServingInstance, mhz: int | None) -> None:
    try:
        await instance.set_clock_mhz(mhz)
    except SlurmPowerError as refusal:  # without an agent no clock was set that would have to be given back
        if mhz is not None:
            raise ConfigError(f"--clocks {mhz}: {refusal}; run it in a Slurm job on a node with an agent") from refusal


@contextmanager
def _server(model: Path, options: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """A server of its own, gone at the end; its address and the file with its token."""
    with tempfile.TemporaryDirectory(prefix="slurm-power-profile-") as folder:
        endpoints, log = Path(folder) / "endpoints", Path(folder) / "log"
        environment = {**os.environ, FOLDER_VARIABLE: str(endpoints)}
        argv = [sys.executable, "-m", "job_wrappers.serve", "run", str(model), *options]
        with log.open("wb") as file:
            child = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            yield _address(child, endpoints, log)
        finally:
            child.terminate()
            try:
                child.wait(timeout=60.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _address(child: subprocess.Popen[bytes], endpoints: Path, log: Path) -> tuple[str, Path]:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        for path in endpoints.glob("*.json"):
            try:
                raw: dict[str, Any] = json.loads(path.read_text())
                return str(raw["url"]), Path(raw["token_file"])
            except (OSError, ValueError, KeyError):
                continue
        if child.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it wrote nothing"]
            raise Unavailable(f"slurm-power-serve ended before it served: {last[0][:300]}")
        time.sleep(_LOOK_S)
    raise Unavailable(f"slurm-power-serve does not serve after {_START_S:.0f} s")


def _origin(model: Path, decodes: Sequence[DecodePoint], *, measured: int) -> str:
    """Where the numbers come from: what a person needs to judge them."""
    board, _ = _boards()
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    watts = "" if any(one.watts for one in decodes) else "; no energy counter, so no watts"
    return (
        f"measured by `slurm-power profile serve` on {platform.node()} ({board}), {now}: {model.resolve().name}, "
        f"{measured} points{watts}"
    )


def _boards() -> tuple[str, int]:
    """What computes, in words, and its highest SM clock; 1 where nobody tells: no clock can be set there either."""
    from slurm_power.adapters.gpu_nvml import NvmlInventory

    inventory = NvmlInventory()
    try:
        gpus = inventory.gpus()
        names = sorted({gpu.identity.name for gpu in gpus})
        highest_mhz = max((gpu.limits.max_sm_clock_mhz for gpu in gpus), default=1)
    except SlurmPowerError:
        names, highest_mhz = [], 1
    finally:
        inventory.close()
    return ", ".join(names) or platform.processor() or platform.machine(), highest_mhz
