"""One job on one screen: its figures, bars and advice, on the terminal, as JSON, and as rows for a page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slurm_power import __version__
from slurm_power.cli.report_text import COLOURS
from slurm_power.cli.report_words import (
    SIGNS,
    TITLES,
    about,
    data_line,
    moment,
    number,
    percent,
    seconds,
    verdict_word,
)
from slurm_power.cli.words import kwh, printable
from slurm_power.ess.site_period import Action
from slurm_power.monitoring.energy_account import Spent
from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.report import QualityReport, report_json
from slurm_power.sla.verdict import Verdict

BAR_WIDTH = 18
MAX_BARS = 16
MAX_DECISIONS = 8


@dataclass(frozen=True, slots=True)
class JobScreen:
    quality: QualityReport
    spent: Spent | None
    """None: no agent counted its energy."""

    currency: str | None
    decisions: Sequence[Action]


def screen_json(screen: JobScreen) -> dict[str, Any]:
    spent = screen.spent
    return {
        "quality": report_json(screen.quality, made_wall_s=time.time(), made_by=f"slurm-power {__version__}"),
        "energy": None
        if spent is None
        else {
            "joules": spent.joules,
            "gpu_joules": spent.gpu.joules,
            "money": spent.worth.money,
            "currency": screen.currency,
            "carbon_grams": spent.worth.carbon_grams,
        },
        "decisions": [asdict(action) for action in screen.decisions],
        "advice": list(advice(screen.quality)),
    }


def advice(report: QualityReport) -> Iterator[str]:
    """What the quadrants that did not pass say, the worst first."""
    order = (Verdict.FAIL, Verdict.WARN, Verdict.UNKNOWN)
    for wanted in order:
        for quadrant, verdict in report.quadrants.items():
            if verdict is wanted:
                yield report.sentences[quadrant]


def summary(screen: JobScreen) -> Iterator[tuple[str, str]]:
    report, spent = screen.quality, screen.spent
    gpus = report.gpus
    nodes = sorted({gpu.node for gpu in gpus})
    yield "ran on", f"{len(gpus)} GPUs of {', '.join(nodes[:4])}{' ...' if len(nodes) > 4 else ''}"
    yield "for", seconds(report.scope.until_wall_s - report.scope.since_wall_s)
    yield "GPU utilisation, mean", percent(_mean([gpu.power.utilisation_fraction for gpu in gpus]), 0)
    yield "power of a GPU under load", number(_mean([gpu.power.mean_watts for gpu in gpus]), "W")
    yield "energy", _energy(spent)
    if spent is not None and spent.worth.money is not None:
        yield "cost", f"{spent.worth.money:,.2f} {screen.currency or ''}".strip()
    if spent is not None and spent.worth.carbon_grams is not None:
        yield "emitted", f"{spent.worth.carbon_grams / 1000:,.2f} kg CO2"
    for who, words in (("operator", "held by the agreed power cap"), ("user", "held by its own power cap")):
        held_s = sum(gpu.throttling.policy_s(who) for gpu in gpus)
        if held_s > 0:
            yield words, f"{percent(held_s / sum(gpu.throttling.known_s for gpu in gpus))} of the time (no fault)"


def _energy(spent: Spent | None) -> str:
    if spent is None or (not spent.joules and spent.gpu.unknown_s):
        return "not known"
    partly = f"; nothing is known of {seconds(spent.gpu.unknown_s)}" if spent.gpu.unknown_s > 1 else ""
    return f"{kwh(spent.joules)}, {kwh(spent.gpu.joules)} of it the GPUs'{partly}"


def facts_table(screen: JobScreen) -> str:
    from slurm_power.cli.report_page import table  # its colours need matplotlib, which takes a moment to load

    return table(("this job", ""), summary(screen))


def print_screen(screen: JobScreen, console: Console) -> None:
    report = screen.quality
    colour = COLOURS[report.verdict]
    console.print(f"[bold]{escape(report.scope.title.capitalize())}[/] [{colour}]{verdict_word(report.verdict)}[/]")
    console.print(about(report.scope), markup=False)
    facts = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    for name, value in summary(screen):
        facts.add_row(name, value)
    console.print(facts)
    for line in bars(report.gpus):
        console.print(line, markup=False)
    words = "  ".join(f"{SIGNS[verdict]} {TITLES[quadrant]}" for quadrant, verdict in report.quadrants.items())
    console.print(f"\n{words}", markup=False)
    console.print("\n[bold]What to do[/]")
    for line in list(advice(report)) or ["Nothing: the job used its GPUs well and nothing held it back unduly."]:
        console.print(f"- {line}", markup=False)
    if screen.decisions:
        console.print("\n[bold]What slurm-power did with it[/]")
        for action in screen.decisions[-MAX_DECISIONS:]:
            failed = f" (refused: {printable(action.failure)})" if action.failure else ""
            told = f"{moment(action.wall_s)} {action.verb}: {printable(action.reason)}{failed}"
            console.print(f"- {told}", markup=False)
    console.print(f"\n{data_line(report)}", markup=False)


def bars(gpus: Sequence[GpuFigures]) -> Iterator[str]:
    yield f"{'':18} {'utilisation, mean':<{BAR_WIDTH + 7}} power under load, of TDP"
    for gpu in gpus[:MAX_BARS]:
        name = f"{gpu.node} {gpu.uuid[:12]}"
        yield f"{name:<18.18} {_bar(gpu.power.utilisation_fraction)}  {_bar(gpu.power.mean_fraction)}"
    if len(gpus) > MAX_BARS:
        yield f"... and {len(gpus) - MAX_BARS} more GPUs"


def _bar(fraction: float | None) -> str:
    if fraction is None:
        return f"{'-':<{BAR_WIDTH + 6}}"
    full = round(min(1.0, max(0.0, fraction)) * BAR_WIDTH)
    return f"{'█' * full}{'░' * (BAR_WIDTH - full)} {100 * fraction:4.0f}%"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
