"""Joules of one device: its counter first, its power over time where the counter cannot be had. Pure.

What was counted, what was integrated and for how long nothing is known are kept apart, so that whoever reads a sum can
say what it rests on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from slurm_power.monitoring.energy_check import CounterCheck


@dataclass(frozen=True, slots=True)
class EnergyRules:
    most_watts: float = 2000.0
    """No board draws more: a counter that rose faster was not counting what we think."""

    max_gap_s: float = 15.0
    """Power is integrated between two readings this close, no further: of a store thinned to one in ten seconds too."""

    wraps_joules: float | None = None
    """What the counter counts to before it starts over at zero; None: it never does, so a fall is a reset."""

    counter_lag_s: float = 2.0
    """A counter is brought up to date in steps no longer than this."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading. None: not told."""

    at_s: float
    energy_joules: float | None
    draw_watts: float | None


@dataclass(frozen=True, slots=True)
class Used:
    counted_joules: float = 0.0
    integrated_joules: float = 0.0
    unknown_s: float = 0.0  # of this time we do not know all, so the joules are too few

    @property
    def joules(self) -> float:
        return self.counted_joules + self.integrated_joules

    def __add__(self, other: Used) -> Used:
        return Used(
            self.counted_joules + other.counted_joules,
            self.integrated_joules + other.integrated_joules,
            self.unknown_s + other.unknown_s,
        )

    def __sub__(self, other: Used) -> Used:
        return Used(
            self.counted_joules - other.counted_joules,
            self.integrated_joules - other.integrated_joules,
            self.unknown_s - other.unknown_s,
        )

    def part(self, fraction: float) -> Used:
        return Used(fraction * self.counted_joules, fraction * self.integrated_joules, fraction * self.unknown_s)


NOTHING = Used()


@dataclass(frozen=True, slots=True)
class Piece:
    """Between two neighbouring readings."""

    from_s: float
    to_s: float
    used: Used


def pieces_of(moments: Iterable[Moment], *, rules: EnergyRules) -> list[Piece]:
    """Readings in any order; of several at one time the first with a counter counts."""
    by_time: dict[float, Moment] = {}
    for moment in moments:
        known = by_time.get(moment.at_s)
        if known is None or (known.energy_joules is None and moment.energy_joules is not None):
            by_time[moment.at_s] = moment
    told = [one for _, one in sorted(by_time.items()) if one.energy_joules is not None or one.draw_watts is not None]
    return [Piece(a.at_s, b.at_s, used_between(a, b, rules=rules)) for a, b in pairwise(told)]


def used_between(before: Moment, after: Moment, *, rules: EnergyRules, trusted: bool = True) -> Used:
    """`trusted` False: go by power alone wherever it is known."""
    elapsed_s = after.at_s - before.at_s
    if elapsed_s <= 0:
        return NOTHING
    counted = counted_between(before, after, rules=rules)
    integral = integrated_between(before, after, rules=rules)
    if counted is not None and (trusted or integral is None):
        return Used(counted_joules=counted)
    if integral is not None:
        return Used(integrated_joules=integral)
    since_reset = _since_reset(before, after, rules)
    return Used(counted_joules=since_reset, unknown_s=elapsed_s)


def counted_between(before: Moment, after: Moment, *, rules: EnergyRules) -> float | None:
    """None: a counter is missing, was reset, or rose as no board can."""
    if before.energy_joules is None or after.energy_joules is None:
        return None
    most_joules = rules.most_watts * (after.at_s - before.at_s + rules.counter_lag_s)
    rise_joules = after.energy_joules - before.energy_joules
    if rise_joules < 0 and rules.wraps_joules is not None:
        rise_joules += rules.wraps_joules
        if most_joules >= rules.wraps_joules:
            return None  # it may have gone round more than once
    return rise_joules if 0 <= rise_joules <= most_joules else None


def integrated_between(before: Moment, after: Moment, *, rules: EnergyRules) -> float | None:
    elapsed_s = after.at_s - before.at_s
    if before.draw_watts is None or after.draw_watts is None or not 0 < elapsed_s <= rules.max_gap_s:
        return None
    return elapsed_s * (before.draw_watts + after.draw_watts) / 2


def _since_reset(before: Moment, after: Moment, rules: EnergyRules) -> float:
    """A counter that began anew in between: at least what it shows has been drawn since."""
    if before.energy_joules is None or after.energy_joules is None or after.energy_joules >= before.energy_joules:
        return 0.0
    possible = after.energy_joules <= rules.most_watts * (after.at_s - before.at_s + rules.counter_lag_s)
    return after.energy_joules if possible and rules.wraps_joules is None else 0.0


class EnergyMeter:
    """Adds up readings as they come, in time order; a counter is believed once it agrees with the power."""

    def __init__(self, *, rules: EnergyRules, check: CounterCheck) -> None:
        self._rules = rules
        self._check = check
        self._last: Moment | None = None
        self.used = NOTHING

    @property
    def counter_is_wrong(self) -> bool:
        return self._check.good is False

    @property
    def counter_verdict(self) -> str:
        return self._check.verdict

    def add(self, moment: Moment) -> None:
        """A reading that is not younger than the last one is left out."""
        if moment.energy_joules is None and moment.draw_watts is None:
            return
        before = self._last
        if before is not None:
            if moment.at_s <= before.at_s:
                return
            self._check.add(
                moment.at_s - before.at_s,
                counted_joules=_rise(before, moment),
                integrated_joules=integrated_between(before, moment, rules=self._rules),
            )
            trusted = self._check.good is True
            self.used += used_between(before, moment, rules=self._rules, trusted=trusted)
        self._last = moment


def _rise(before: Moment, after: Moment) -> float | None:
    """However unlikely: the check is there to find that out. A fall tells nothing."""
    if before.energy_joules is None or after.energy_joules is None or after.energy_joules < before.energy_joules:
        return None
    return after.energy_joules - before.energy_joules
