"""A run's numbers as people read them. Unknown is a dash."""

from __future__ import annotations

import time
from collections.abc import Mapping

UNKNOWN = "-"
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def scaled(value: float | None, unit: str) -> str:
    """Three digits and a prefix: 12.3 kJ."""
    if value is None:
        return UNKNOWN
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def percent(fraction: float | None) -> str:
    return UNKNOWN if fraction is None else f"{100.0 * fraction:.1f} %"


def number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def plan_text(plan: Mapping[str, object]) -> str:
    """`pipeline 2 x tensor 1 x data 2, expert 2, 4 micro-batches of 2, 1f1b, ZeRO-1`."""
    cut = " x ".join(f"{axis} {plan[axis]}" for axis in ("pipeline", "tensor", "data"))
    batches = f"{plan['micro_batches']} micro-batches of {plan['micro_sequences']}"
    return f"{cut}, expert {plan['expert']}, {batches}, {plan['schedule']}, ZeRO-{plan['zero_stage']}"


def local_time(unix_s: float | None) -> str:
    """With its zone."""
    return UNKNOWN if unix_s is None else time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(unix_s))
