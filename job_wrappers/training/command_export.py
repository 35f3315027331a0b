"""slurm-power-train export: a checkpoint as a Hugging Face folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from job_wrappers.training.attempts import find_run_folder
from training.errors import ConfigError


@click.command()
@click.argument("run")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--dtype", type=click.Choice(["bf16", "fp8", "fp32"]), default="bf16", show_default=True)
def export(run: str, out: Path, dtype: str) -> None:
    """Write a checkpoint of RUN as a Hugging Face folder OUT: config.json, safetensors, the dataset's tokenizer.

    RUN: a run folder or a Slurm job id, then its newest checkpoint that is whole; or a folder of checkpoints, or one
    checkpoint. fp8: weights that train in FP8 as 128 x 128 blocks with their scales, as DeepSeek-V3 is published.
    """
    from training.checkpoint.load import StoredState
    from training.model.config import ModelConfig
    from training.model.hf_folder import save_hf
    from training.precision import Precision

    if out.exists():
        raise ConfigError(f"out = {out}: exists already; choose another or remove it")
    state = StoredState(chosen_checkpoint(find_run_folder(run, Path.cwd())))
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        save_hf(out, ModelConfig.from_hf(state.manifest.model), _Weights(state, bar), Precision(dtype))
    kept = copy_tokenizer(state.manifest.config, out)
    click.echo(f"{out}: step {state.manifest.progress.step}, {dtype}, {'with' if kept else 'without'} a tokenizer")


def chosen_checkpoint(folder: Path) -> Path:
    """Raise ConfigError when there is none that is whole, StorageError for a damaged one that was named itself."""
    from training.checkpoint.agreement import Alone
    from training.checkpoint.load import find_checkpoint
    from training.checkpoint.manifest import MANIFEST

    if (folder / MANIFEST).exists():
        return folder
    checkpoints = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    found, warnings = find_checkpoint(checkpoints, Alone())
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if found is None:
        raise ConfigError(f"run = {folder}: no complete checkpoint in {checkpoints}")
    return found


def copy_tokenizer(run_config: Mapping[str, Any], out: Path) -> bool:
    """The dataset's tokenizer.json, if it has one (bytes need none) and is still there."""
    dataset = run_config.get("data", {}).get("dataset")
    if dataset is None or not (tokenizer := Path(str(dataset)) / "tokenizer.json").is_file():
        return False
    shutil.copyfile(tokenizer, out / tokenizer.name)
    return True


class _Weights(Mapping[str, Any]):
    """Master weights and buffers, each read when it is asked for."""

    def __init__(self, state: Any, bar: Progress) -> None:
        self._state, self._bar = state, bar
        self._kinds = {name: kind for kind in ("master", "buffer") for name in state.shapes(kind)}
        self._task = bar.add_task("", total=len(self._kinds))

    def __getitem__(self, name: str) -> Any:
        self._bar.advance(self._task)
        return self._state.whole(name, self._kinds[name])

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)
