"""slurm-power-train prepare: text files to a tokenised dataset."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path), help="Dataset to make; must not exist."
)
@click.option(
    "--tokenizer",
    default="bytes",
    show_default=True,
    help="bytes, train:N (a BPE of N tokens, made from the files), or a tokenizer.json.",
)
@click.option("--pattern", default="*", show_default=True, help="Which files of a folder, as *.py.")
def prepare(files: tuple[Path, ...], folder: Path, tokenizer: str, pattern: str) -> None:
    """Make a dataset out of text FILES; a folder stands for the files in it, one document each."""
    from training.data.prepare import prepare as make

    columns, console = (BarColumn(), DownloadColumn(), TimeRemainingColumn()), Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        meta = make(
            files,
            folder,
            tokenizer=tokenizer,
            pattern=pattern,
            progress=lambda done_bytes, total_bytes: bar.update(task, completed=done_bytes, total=total_bytes),
        )
    click.echo(
        f"{folder}: {meta.documents:,} documents, {meta.tokens:,} tokens of {meta.vocabulary_size:,} kinds, "
        f"tokenizer {meta.tokenizer}"
    )
