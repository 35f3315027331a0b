"""A quality report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from typing import Any

from slurm_power.cli.report_page import figure, page, table
from slurm_power.cli.report_plots import svgs
from slurm_power.cli.report_words import (
    TITLES,
    about,
    data_line,
    gpu_headings,
    gpu_row,
    moment,
    number,
    reason_rows,
    seconds,
    verdict_word,
)
from slurm_power.sla.clock import ClockRegime
from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.report import QualityReport
from slurm_power.sla.verdict import Verdict

MAX_GAPS = 50


def quality_page(report: QualityReport, content: dict[str, Any], *, first: str = "") -> str:
    """`content`: the same report as JSON; the page names its hash. `first`: HTML that stands above the verdicts."""
    title = f"Quality of service: {report.scope.title}"
    return page(title, "\n".join(_parts(report, content, first)))


def verdict_span(verdict: Verdict) -> str:
    return f'<span class="word {_class(verdict)}">{escape(verdict_word(verdict))}</span>'


def quadrant_cards(report: QualityReport) -> Iterator[str]:
    yield '<div class="cards">'
    for quadrant, verdict in report.quadrants.items():
        yield (
            f'<section class="card {_class(verdict)}"><h3>{escape(TITLES[quadrant])}</h3>{verdict_span(verdict)}'
            f"<p>{escape(report.sentences[quadrant])}</p></section>"
        )
    yield "</div>"


def _parts(report: QualityReport, content: dict[str, Any], first: str) -> Iterator[str]:
    yield f"<header><h1>Quality of service: {escape(report.scope.title)}</h1>{verdict_span(report.verdict)}</header>"
    yield f'<p class="about">{escape(about(report.scope))}<br>{escape(data_line(report))}</p>'
    yield first
    yield from quadrant_cards(report)
    yield f'<h2>Over time</h2><div class="curves">{"".join(map(figure, svgs(report).values()))}</div>'
    yield "<h2>Each GPU</h2>" + table(gpu_headings(report), map(gpu_row, report.gpus), numbers_from=2)
    yield (
        '<p class="note">Held back: by heat, power brake, hardware slowdown, or a limit that neither the operator nor'
        " the job asked for. Agreed caps (the operator's power plan, the job's own) are counted apart and are no fault."
        " Off: from the expected clock, for which no cap is the reason.</p>"
    )
    headings = ("held back by", "whose doing", "time, all GPUs together", "times")
    yield "<h2>Why the GPUs were held back</h2>" + table(headings, reason_rows(report.gpus), numbers_from=2)
    yield "<h2>Expected clocks</h2>" + table(
        ("GPU", "lock", "limit", "expected", "because", "loaded time"), _regime_rows(report.gpus), numbers_from=1
    )
    yield "<h2>What is not known</h2>" + _gaps(report)
    yield "<h2>Judged against</h2>" + table(("threshold", "value"), _threshold_rows(report))
    yield (
        f"<footer><p>Made {escape(str(content['made_at']))} by {escape(str(content['made_by']))}. Times are UTC."
        f" SHA-256 of the samples this was made from: <code>{escape(str(content['samples_sha256']))}</code>."
        " What can be signed and verified is the report's JSON (<code>slurm-power report verify</code>); this page is a"
        " picture of it.</p></footer>"
    )


def _regime_rows(gpus: tuple[GpuFigures, ...]) -> Iterator[tuple[str, ...]]:
    for gpu in gpus:
        for regime in gpu.clock.regimes:
            yield (
                f"{gpu.node} {gpu.uuid[:12]}",
                number(regime.locked_mhz, "MHz"),
                number(regime.cap_watts, "W"),
                number(regime.expected_mhz, "MHz"),
                _because(regime),
                seconds(regime.loaded_s),
            )


def _because(regime: ClockRegime) -> str:
    return "it was locked" if regime.expected_from == "lock" else "median seen"


def _gaps(report: QualityReport) -> str:
    found = [(gpu, gap) for gpu in report.gpus for gap in gpu.data.gaps.listed]
    if not found:
        return "<p>Nothing: there is no gap in the samples.</p>"
    rows = [
        (f"{gpu.node} {gpu.uuid[:12]}", moment(begin), moment(end), seconds(end - begin))
        for gpu, (begin, end) in found[:MAX_GAPS]
    ]
    total = sum(gpu.data.gaps.count for gpu in report.gpus)
    more = f'<p class="note">{len(rows)} of {total} gaps.</p>' if total > len(rows) else ""
    return table(("GPU", "from", "to", "length"), rows) + more


def _threshold_rows(report: QualityReport) -> Iterator[tuple[str, str]]:
    for group, values in asdict(report.thresholds).items():
        for name, value in values.items():
            yield f"{group}: {name}", f"{value:g}"


def _class(verdict: Verdict) -> str:
    return "unknown" if verdict is Verdict.UNKNOWN else str(verdict)
