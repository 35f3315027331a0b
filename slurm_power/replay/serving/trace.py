"""Requests of a trace, and the week that is made of an hour. Columns as in Azure's public traces."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from slurm_power.errors import ConfigError

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
DAY_S, WEEK_S = 86_400.0, 604_800.0
PEAK_OVER_MEAN, PEAK_OVER_VALLEY, WEEKEND_FRACTION, PEAK_HOUR = 1.7, 3.3, 0.7, 14.0
"""The ratios that are reported for the service whose week this stands for."""

TURNED_COPIES = 4
_MOST_TOKENS = 10_000_000

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Requests:
    """In order of arrival; the first second is 0."""

    arrival_s: Numbers
    prompt_tokens: Counts
    output_tokens: Counts
    span_s: float

    @property
    def count(self) -> int:
        return int(self.arrival_s.size)

    def between(self, from_s: float, to_s: float) -> Requests:
        """Those that arrive in this time, counted from its beginning."""
        first, last = np.searchsorted(self.arrival_s, (from_s, to_s))
        return Requests(
            self.arrival_s[first:last] - from_s,
            self.prompt_tokens[first:last],
            self.output_tokens[first:last],
            to_s - from_s,
        )


def read_requests(lines: Iterable[str], *, where: str) -> Requests:
    """Raise ConfigError with file, line and rule for what cannot be read."""
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    if len(header) < 3 or tuple(header[:3]) != COLUMNS:
        raise ConfigError(f"{where}: the first line must be {','.join(COLUMNS)}")
    times, prompts, outputs = [], [], []
    for number, row in enumerate(reader, start=2):
        if not row:
            continue
        try:
            times.append(_seconds(row[0]))
            prompts.append(_tokens(row[1]))
            outputs.append(_tokens(row[2]))
        except (ValueError, IndexError) as cause:
            raise ConfigError(
                f"{where}, line {number}: {','.join(row)[:80]!r}: a time and two counts of tokens"
            ) from cause
    if len(times) < 2:
        raise ConfigError(f"{where}: at least two requests are needed")
    order = np.argsort(np.array(times), kind="stable")
    arrival_s = np.array(times)[order]
    arrival_s -= arrival_s[0]
    span_s = float(arrival_s[-1]) * (1.0 + 1.0 / len(times))
    if span_s <= 0:
        raise ConfigError(f"{where}: all requests arrive at the same time")
    return Requests(arrival_s, np.array(prompts)[order], np.array(outputs)[order], span_s)


def scaled(requests: Requests, factor: float, *, seed: int = 0) -> Requests:
    """`factor` times as many: copies, each turned by another part of the span, and the rest thinned. Mixes of lengths
    and the slow changes stay; bursts of the copies do not fall together."""
    if not 0 < factor < math.inf:
        raise ConfigError(f"scale {factor}: must be above 0")
    copies = math.ceil(factor)
    rng = np.random.default_rng(seed)
    kept = [np.flatnonzero(rng.random(requests.count) < factor / copies) for _ in range(copies)]
    turned = [
        (requests.arrival_s[rows] + requests.span_s * copy / copies) % requests.span_s for copy, rows in enumerate(kept)
    ]
    return _sorted(np.concatenate(turned), np.concatenate(kept), requests, requests.span_s)


def week_of(hour: Requests, *, peak_factor: float = 1.0, seed: int = 0, days: int = 7) -> Requests:
    """SYNTHETIC: the hour repeated, each time thinned to the share that the hour of the week has of the peak. It begins
    on a Monday at midnight; the weekday's peak is `peak_factor` times the hour's mean. Each repeat is made of
    TURNED_COPIES, so that the hour's own ups and downs do not come again every hour."""
    copies = max(TURNED_COPIES, math.ceil(peak_factor))
    rng = np.random.default_rng(seed)
    arrivals, rows = [], []
    for repeat in range(math.ceil(days * DAY_S / hour.span_s)):
        for copy in range(copies):
            turned = (hour.arrival_s + hour.span_s * copy / copies) % hour.span_s
            at_s = turned + repeat * hour.span_s
            share = peak_factor / copies * week_share(at_s)
            kept = np.flatnonzero((rng.random(hour.count) < share) & (at_s < days * DAY_S))
            arrivals.append(at_s[kept])
            rows.append(kept)
    return _sorted(np.concatenate(arrivals), np.concatenate(rows), hour, days * DAY_S)


def week_share(at_s: Numbers) -> Numbers:
    """Load as a share of the weekday's peak: valley + (peak - valley) s^g with s a cosine over the day, where g makes
    the mean come out."""
    peak, valley = PEAK_OVER_MEAN, PEAK_OVER_MEAN / PEAK_OVER_VALLEY
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (at_s / DAY_S - PEAK_HOUR / 24.0))
    share: Numbers = (valley + (peak - valley) * wave ** _exponent((1.0 - valley) / (peak - valley))) / peak
    weekend = (at_s % WEEK_S) >= 5 * DAY_S
    return np.where(weekend, WEEKEND_FRACTION, 1.0) * share


@lru_cache(maxsize=8)
def _exponent(mean: float) -> float:
    """Of which a raised cosine between 0 and 1 has this mean."""
    wave = 0.5 + 0.5 * np.cos(np.linspace(0.0, 2 * np.pi, 1441)[:-1])
    low, high = 0.1, 10.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float((wave**middle).mean()) > mean else (low, middle)
    return low


def with_burst(requests: Requests, *, from_s: float, length_s: float, seed: int = 0) -> Requests:
    """Arrivals doubled for a while: each one there has a twin within a second."""
    inside = np.flatnonzero((requests.arrival_s >= from_s) & (requests.arrival_s < from_s + length_s))
    twins = requests.arrival_s[inside] + np.random.default_rng(seed).random(inside.size)
    rows = np.concatenate([np.arange(requests.count), inside])
    return _sorted(np.concatenate([requests.arrival_s, twins]), rows, requests, requests.span_s)


def busiest(requests: Requests, length_s: float = 300.0) -> float:
    """Where the window with the most tokens, in and out, begins."""
    tokens = np.concatenate([[0], np.cumsum(requests.prompt_tokens + requests.output_tokens)])
    starts = np.arange(0.0, max(1.0, requests.span_s - length_s + 1.0), length_s / 10)
    ends = np.searchsorted(requests.arrival_s, starts + length_s)
    return float(starts[np.argmax(tokens[ends] - tokens[np.searchsorted(requests.arrival_s, starts)])])


def _sorted(arrival_s: Numbers, rows: Counts, source: Requests, span_s: float) -> Requests:
    order = np.argsort(arrival_s, kind="stable")
    chosen = rows[order]
    return Requests(arrival_s[order], source.prompt_tokens[chosen], source.output_tokens[chosen], span_s)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        whole, _, fraction = text.strip().partition(".")
        moment = datetime.fromisoformat(whole)
        seconds = (moment - datetime(2000, 1, 1, tzinfo=moment.tzinfo)).total_seconds()
        seconds += float(f"0.{fraction}") if fraction else 0.0
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def _tokens(text: str) -> int:
    tokens = int(text)
    if not 1 <= tokens <= _MOST_TOKENS:
        raise ValueError(text)
    return tokens
