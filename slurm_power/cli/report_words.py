"""A report's figures as people read them; unknown is a dash. The terminal and the page say the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from slurm_power.cli.words import UNKNOWN, printable
from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.report import QualityReport, Scope
from slurm_power.sla.throttling import Held
from slurm_power.sla.verdict import Quadrant, Verdict

TITLES = {
    Quadrant.CLOCK: "Clock consistency",
    Quadrant.THROTTLING: "Throttling",
    Quadrant.THERMAL: "Thermal headroom",
    Quadrant.POWER: "Power against TDP",
}
SIGNS = {Verdict.PASS: "✓", Verdict.WARN: "!", Verdict.FAIL: "✗", Verdict.UNKNOWN: "?"}
"""Beside the word and the colour: none of them alone."""

REASONS = {
    "sw_power_cap": "software power cap",
    "hw_slowdown": "hardware slowdown",
    "sw_thermal": "software thermal",
    "hw_thermal": "hardware thermal",
    "power_brake": "power brake",
}
OWNERS = {
    "board": "the board's own limit",
    "operator": "the operator's cap (slurm-power)",
    "user": "the job's own cap",
    "site": "a limit nobody here asked for",
}

Row = tuple[str, ...]


def number(value: float | None, unit: str, digits: int = 0) -> str:
    return UNKNOWN if value is None else f"{value:,.{digits}f} {unit}"


def percent(fraction: float | None, digits: int = 1) -> str:
    return UNKNOWN if fraction is None else f"{100 * fraction:.{digits}f} %"


def seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if value < 120:
        return f"{value:.3g} s" if value else "0 s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def moment(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def verdict_word(verdict: Verdict) -> str:
    return f"{SIGNS[verdict]} {verdict}"


def about(scope: Scope) -> str:
    """Who and when, on one line; a user's texts without control characters."""
    parts = [] if not scope.job_name else [f"“{printable(scope.job_name)}”"]
    parts += [f"user {printable(scope.user)}"] if scope.user else []
    parts += [f"account {printable(scope.account)}"] if scope.account and scope.kind == "job" else []
    parts += [f"{len(scope.jobs)} jobs"] if scope.kind == "account" else []
    return ", ".join([*parts, f"{moment(scope.since_wall_s)} to {moment(scope.until_wall_s)}"])


def data_line(report: QualityReport) -> str:
    known_s = sum(gpu.data.known_s for gpu in report.gpus)
    wanted_s = sum(gpu.data.wanted_s for gpu in report.gpus)
    gaps = sum(gpu.data.gaps.count for gpu in report.gpus)
    damaged = sum(gpu.data.damaged_blocks for gpu in report.gpus)
    samples = sum(gpu.data.samples for gpu in report.gpus)
    share = UNKNOWN if not wanted_s else percent(known_s / wanted_s)
    broken = f"; {damaged} damaged blocks were not used" if damaged else ""
    return f"{samples:,} samples of {len(report.gpus)} GPUs cover {share} of the time, with {gaps} gaps{broken}."


def gpu_headings(report: QualityReport) -> Row:
    rules = report.thresholds.clock
    return (
        "node",
        "GPU",
        "mean clock",
        f"off > {rules.warn_mhz:g} MHz",
        f"off > {rules.critical_mhz:g} MHz",
        "held back",
        "by agreed caps",
        "least margin",
        "mean draw",
        "of TDP",
        "time known",
    )


def gpu_row(gpu: GpuFigures) -> Row:
    policy_s = gpu.throttling.policy_s("operator") + gpu.throttling.policy_s("user")
    known_s = gpu.throttling.known_s
    return (
        gpu.node,
        gpu.uuid,
        number(gpu.clock.mean_mhz, "MHz"),
        percent(gpu.clock.warn_fraction),
        percent(gpu.clock.critical_fraction),
        percent(gpu.throttling.infrastructure_fraction),
        percent(policy_s / known_s if known_s else None),
        number(gpu.thermal.min_celsius, "°C"),
        number(gpu.power.mean_watts, "W"),
        percent(gpu.power.mean_fraction, 0),
        percent(gpu.data.coverage_fraction),
    )


def reason_rows(gpus: Sequence[GpuFigures]) -> list[Row]:
    """By reason, all GPUs together: what, whose doing, how long, how often."""
    faults = [(name, words) for name, words in REASONS.items() if name != "sw_power_cap"]
    rows = [_row(words, "the infrastructure", [gpu.throttling.reasons[name] for gpu in gpus]) for name, words in faults]
    cap = REASONS["sw_power_cap"]
    return rows + [
        _row(cap, words, [gpu.throttling.power_cap_of[who] for gpu in gpus]) for who, words in OWNERS.items()
    ]


def _row(what: str, whose: str, held: Sequence[Held]) -> Row:
    return what, whose, seconds(sum(one.seconds for one in held)), str(sum(one.episodes for one in held))


SCREEN_HEADINGS: Row = ("node", "GPU", "MHz", "off %", "held %", "caps %", "°C left", "W", "TDP %", "known %")
"""Narrow: all of it stands on 80 columns."""


def screen_row(gpu: GpuFigures) -> Row:
    """As gpu_row; the unit stands above."""
    known_s = gpu.throttling.known_s
    policy_s = gpu.throttling.policy_s("operator") + gpu.throttling.policy_s("user")
    values = (
        (gpu.clock.mean_mhz, 1, 0),
        (gpu.clock.warn_fraction, 100, 1),
        (gpu.throttling.infrastructure_fraction, 100, 1),
        (policy_s / known_s if known_s else None, 100, 1),
        (gpu.thermal.min_celsius, 1, 0),
        (gpu.power.mean_watts, 1, 0),
        (gpu.power.mean_fraction, 100, 0),
        (gpu.data.coverage_fraction, 100, 1),
    )
    return (
        gpu.node,
        gpu.uuid[:12],
        *(UNKNOWN if value is None else f"{value * scale:.{digits}f}" for value, scale, digits in values),
    )
