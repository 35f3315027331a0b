"""What a site drew, paid and did over a period: peaks, energy, bill, actions with their reasons. Pure.

Means of metering intervals, from what was recorded; one that is mostly unknown is left out of all sums, and said.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slurm_power.ess.bill import Bill, BilledInterval, bill
from slurm_power.ess.rates import Rates
from slurm_power.monitoring.slot_averages import SlotMean

SERIES = ("grid_import_watts", "it_watts", "inflexible_watts", "charge_watts", "discharge_watts")
MAX_PEAKS = 5
MAX_REASONS = 8


@dataclass(frozen=True, slots=True)
class Peak:
    start_wall_s: float
    watts: float


@dataclass(frozen=True, slots=True)
class Action:
    """One decision of the controller, as it was recorded."""

    wall_s: float
    verb: str
    subject: str
    reason: str
    failure: str


@dataclass(frozen=True, slots=True)
class ActionCount:
    verb: str
    done: int
    refused: int
    reasons: tuple[tuple[str, int], ...]  # the most frequent first


@dataclass(frozen=True, slots=True)
class SitePeriod:
    since_wall_s: float
    until_wall_s: float
    interval_s: float
    known_fraction: float  # of the period, of the grid's import
    peaks: tuple[Peak, ...]  # highest first
    joules: Mapping[str, float | None]  # by series, of what is known of it; None: nothing is
    over_target_s: float  # intervals whose mean was above the target in force
    bill: Bill | None  # None: nothing to bill
    actions: tuple[ActionCount, ...]
    shortfalls: tuple[tuple[str, int], ...]  # what plans said they could not meet, and how often


def site_period(
    means: Mapping[str, Sequence[SlotMean]],
    targets: Mapping[float, float],
    actions: Iterable[Action],
    shortfalls: Iterable[str],
    *,
    since_wall_s: float,
    until_wall_s: float,
    interval_s: float,
    rates: Rates | None,
) -> SitePeriod:
    """`targets`: by the begin of each interval, the one in force at its end."""
    imported = [slot for slot in means.get("grid_import_watts", ()) if slot.watts is not None]
    known = [(slot.start_wall_s, slot.watts) for slot in imported if slot.watts is not None]
    highest = sorted(known, key=lambda one: -one[1])[:MAX_PEAKS]
    intervals = [BilledInterval(start_s, interval_s, max(0.0, watts) * interval_s) for start_s, watts in known]
    return SitePeriod(
        since_wall_s=since_wall_s,
        until_wall_s=until_wall_s,
        interval_s=interval_s,
        known_fraction=min(1.0, len(known) * interval_s / (until_wall_s - since_wall_s)),
        peaks=tuple(Peak(start_s, watts) for start_s, watts in highest),
        joules={name: _joules(means.get(name, ()), interval_s) for name in SERIES},
        over_target_s=interval_s * sum(watts > targets.get(start_s, math.inf) for start_s, watts in known),
        bill=bill(intervals, tariff=rates) if rates is not None and intervals else None,
        actions=tuple(_counted(list(actions))),
        shortfalls=tuple(Counter(shortfalls).most_common(MAX_REASONS)),
    )


def _joules(slots: Iterable[SlotMean], interval_s: float) -> float | None:
    known = [slot.watts * interval_s for slot in slots if slot.watts is not None]
    return math.fsum(known) if known else None


def _counted(actions: Sequence[Action]) -> Iterable[ActionCount]:
    for verb in sorted({action.verb for action in actions}):
        own = [action for action in actions if action.verb == verb]
        refused = sum(bool(action.failure) for action in own)
        reasons = Counter(action.reason for action in own if action.reason).most_common(MAX_REASONS)
        yield ActionCount(verb, len(own) - refused, refused, tuple(reasons))
