"""A quality report on the terminal: one screen."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slurm_power.cli.report_words import (
    SCREEN_HEADINGS,
    TITLES,
    about,
    data_line,
    reason_rows,
    screen_row,
    verdict_word,
)
from slurm_power.sla.report import QualityReport
from slurm_power.sla.verdict import Verdict

COLOURS = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red", Verdict.UNKNOWN: "dim"}
MAX_GPUS = 32


def print_quality(report: QualityReport, console: Console) -> None:
    colour = COLOURS[report.verdict]
    console.print(
        f"[bold]Quality of service: {escape(report.scope.title)}[/] [{colour}]{verdict_word(report.verdict)}[/]"
    )
    console.print(about(report.scope), markup=False)
    quadrants = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    for quadrant, verdict in report.quadrants.items():
        quadrants.add_row(
            TITLES[quadrant],
            f"[{COLOURS[verdict]}]{verdict_word(verdict)}[/]",
            escape(report.sentences[quadrant]),
        )
    console.print(quadrants)
    gpus = Table(*SCREEN_HEADINGS, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    gpus.columns[1].min_width = 12
    for gpu in report.gpus[:MAX_GPUS]:
        gpus.add_row(*screen_row(gpu))
    for column in gpus.columns[2:]:
        column.justify = "right"
    console.print(gpus)
    if len(report.gpus) > MAX_GPUS:
        console.print(f"... and {len(report.gpus) - MAX_GPUS} more GPUs (--json has all).")
    reasons = Table("held back by", "whose doing", "time, all GPUs", "times", box=box.SIMPLE_HEAD)
    for what, whose, how_long, times in reason_rows(report.gpus):
        if times != "0":
            reasons.add_row(what, whose, how_long, times)
    if reasons.row_count:
        console.print(reasons)
    console.print(data_line(report), markup=False)
