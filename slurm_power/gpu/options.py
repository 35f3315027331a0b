"""The power options' text as users typed it, strictly parsed. Hostile input ends in ConfigError, nothing else. Pure.

The SPANK plugin checks the same rules at submission; the agent trusts nothing and checks again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from slurm_power.errors import ConfigError

POWER_CLASSES = ("firm", "flexible", "preemptible")
MAX_CAP_WATTS = 10_000
MAX_CLOCK_MHZ = 10_000
MAX_SLOWDOWN_FRACTION = 0.9
MAX_DELAY_S = 366 * 24 * 3600

T = TypeVar("T")

_MAX_TEXT = 64
_WATTS = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)[wW]?", re.ASCII)
_MHZ = re.compile(r"([0-9]{1,5})(?:[mM][hH][zZ])?", re.ASCII)
_FRACTION = re.compile(r"[0-9]?\.?[0-9]{1,6}", re.ASCII)
_DAYS = re.compile(r"([0-9]{1,4})-([0-9]{1,2})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", re.ASCII)
_CLOCK = re.compile(r"([0-9]{1,8})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PowerOptions:
    """What a job asked for. None: not asked."""

    gpu_cap_watts: float | None = None
    gpu_clock_mhz: int | None = None
    power_class: str | None = None
    max_slowdown_fraction: float | None = None
    max_delay_s: float | None = None


def parse_options(texts: Mapping[str, str]) -> tuple[PowerOptions, tuple[str, ...]]:
    """The readable options, and one line for each that was not: a bad option never costs a job the good ones."""
    refusals: list[str] = []

    def read(name: str, parse: Callable[[str], T]) -> T | None:
        text = texts.get(name, "")
        if not text:
            return None
        try:
            return parse(text)
        except ConfigError as error:
            refusals.append(str(error))
            return None

    options = PowerOptions(
        gpu_cap_watts=read("gpu-power-cap", parse_cap_watts),
        gpu_clock_mhz=read("gpu-clock", parse_clock_mhz),
        power_class=read("power-class", parse_power_class),
        max_slowdown_fraction=read("power-max-slowdown", parse_slowdown_fraction),
        max_delay_s=read("power-max-delay", parse_slurm_time_s),
    )
    return options, tuple(refusals)


def parse_cap_watts(text: str) -> float:
    """`300`, `300W`, `287.5`."""
    found = _matched(_WATTS, text, "gpu-power-cap", "must be watts, as in 300 or 300W")
    watts = float(found.group(1))
    _require(0 < watts <= MAX_CAP_WATTS, "gpu-power-cap", text, f"must be above 0 and at most {MAX_CAP_WATTS} W")
    return watts


def parse_clock_mhz(text: str) -> int:
    """`1200`, `1200MHz`."""
    found = _matched(_MHZ, text, "gpu-clock", "must be whole MHz, as in 1200")
    mhz = int(found.group(1))
    _require(0 < mhz <= MAX_CLOCK_MHZ, "gpu-clock", text, f"must be above 0 and at most {MAX_CLOCK_MHZ} MHz")
    return mhz


def parse_power_class(text: str) -> str:
    _require(text in POWER_CLASSES, "power-class", text, f"must be one of {', '.join(POWER_CLASSES)}")
    return text


def parse_slowdown_fraction(text: str) -> float:
    """`0`, `0.2`, `.2`."""
    _matched(_FRACTION, text, "power-max-slowdown", "must be a fraction, as in 0.2")
    fraction = float(text)
    _require(fraction <= MAX_SLOWDOWN_FRACTION, "power-max-slowdown", text, "must be between 0 and 0.9")
    return fraction


def parse_slurm_time_s(text: str) -> float:
    """sbatch(1), --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    rule = "must be a Slurm time, as in 90, 90:00, 1:30:00 or 1-12:00:00"
    _require(len(text) <= _MAX_TEXT, "power-max-delay", text, rule)
    if with_days := _DAYS.fullmatch(text):
        days, hours, minutes, seconds = (int(part or 0) for part in with_days.groups())
    else:
        first, second, third = _matched(_CLOCK, text, "power-max-delay", rule).groups()
        days = 0
        hours, minutes, seconds = (
            (int(first), int(second), int(third)) if third is not None else (0, int(first), int(second or 0))
        )
    delay_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    _require(delay_s <= MAX_DELAY_S, "power-max-delay", text, "must be at most 366 days")
    return float(delay_s)


def _matched(pattern: re.Pattern[str], text: str, name: str, rule: str) -> re.Match[str]:
    found = pattern.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if found is None:
        raise ConfigError(f"{name} = {shown(text)}: {rule}")
    return found


def _require(condition: bool, name: str, text: str, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{name} = {shown(text)}: {rule}")


def shown(text: str) -> str:
    """A user's text made safe for a log line: ASCII only, no control characters, short."""
    short = text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."
    return ascii(short)[1:-1]
