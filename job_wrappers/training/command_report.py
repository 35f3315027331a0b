"""slurm-power-train report: a run as a table, as JSON, as a page."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from job_wrappers.training.attempts import find_run_folder
from job_wrappers.training.report import print_report, read_report, report_json


@click.command()
@click.argument("run")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Also write the page here.")
@click.option("--json", "json_asked", is_flag=True, help="The same figures as one JSON object.")
def report(run: str, page: Path | None, json_asked: bool) -> None:
    """Show what RUN did: a run folder, or a Slurm job id.

    A job id is looked up as a file `job-<id>` here or one folder below; the run writes it beside its run folder.
    """
    found = read_report(find_run_folder(run, Path.cwd()))
    if page is not None:
        from job_wrappers.training.report_html import write_html

        write_html(found, page)
    if json_asked:
        click.echo(json.dumps(report_json(found), indent=2))
    else:
        print_report(found, Console(highlight=False, markup=False))
