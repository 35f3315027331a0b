"""Do the meters below the feeder add up to it? A check over a window of readings, in words with numbers. Pure.

What was not read at both places is a gap, and a gap is left out of both sums, never filled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from slurm_power.errors import require
from slurm_power.units import kw_from_watts, percent_from_fraction

LEAST_HALF = 0.2  # of what is known must lie in each half before the halves are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class ConservationRules:
    """The `[parts.conservation]` table."""

    window_s: float = 900.0
    """Readings of so long are held against each other."""

    min_fraction: float = 0.95
    """Below this share of the feeder something draws that no part measures."""

    max_fraction: float = 1.02
    """Above this share something is counted twice, or a scale is wrong."""

    max_drift_fraction: float = 0.03
    """The share may change by so much from the window's older half to its newer one."""

    min_known_fraction: float = 0.5
    """With less of the window known at both places there is no verdict."""

    def __post_init__(self) -> None:
        require(self.window_s > 0, "window_s", self.window_s, "must be above 0")
        require(self.min_fraction >= 0, "min_fraction", self.min_fraction, "must not be below 0")
        require(self.max_fraction > self.min_fraction, "max_fraction", self.max_fraction, "must be above min_fraction")
        require(self.max_drift_fraction > 0, "max_drift_fraction", self.max_drift_fraction, "must be above 0")
        require(
            0 < self.min_known_fraction <= 1, "min_known_fraction", self.min_known_fraction, "must be in 0..1, not 0"
        )


@dataclass(frozen=True, slots=True)
class BothSides:
    """One moment: what the feeder and what all parts together said. None: not known."""

    at_s: float
    feeder_watts: float | None
    parts_watts: float | None


@dataclass(frozen=True, slots=True)
class Conservation:
    """`good` None: too little is known for a verdict. Means are over the time in which both sides are known."""

    good: bool | None
    verdict: str
    known_s: float = 0.0
    feeder_watts: float | None = None
    parts_watts: float | None = None
    ratio: float | None = None  # parts / feeder
    drift: float | None = None  # the newer half's ratio less the older half's


class ConservationWindow:
    """The moments that are young enough to count."""

    def __init__(self, rules: ConservationRules, *, max_gap_s: float) -> None:
        self._rules, self._max_gap_s = rules, max_gap_s
        self._moments: deque[BothSides] = deque()

    def add(self, moment: BothSides) -> None:
        """Moments come in time order."""
        self._moments.append(moment)
        while self._moments[0].at_s < moment.at_s - self._rules.window_s:
            self._moments.popleft()

    def check(self) -> Conservation:
        return check_conservation(tuple(self._moments), rules=self._rules, max_gap_s=self._max_gap_s)


def check_conservation(moments: Sequence[BothSides], *, rules: ConservationRules, max_gap_s: float) -> Conservation:
    """Between two moments at most `max_gap_s` apart each side is the line between them; elsewhere it is unknown."""
    known = _known_stretches(moments, max_gap_s)
    whole = _Sums.over(known)
    if whole.known_s < rules.min_known_fraction * rules.window_s:
        return Conservation(
            None,
            f"feeder and all parts are known together for {whole.known_s:.0f} s of {rules.window_s:.0f} s: no verdict",
            whole.known_s,
        )
    feeder_watts, parts_watts = whole.feeder_joules / whole.known_s, whole.parts_joules / whole.known_s
    ratio = whole.ratio
    if ratio is None:
        verdict = f"the feeder shows a mean of {_kw(feeder_watts)} over {whole.known_s:.0f} s: no share to speak of"
        return Conservation(None, verdict, whole.known_s, feeder_watts, parts_watts)
    drift = _drift(known)
    good, judgement = _judgement(ratio, drift, feeder_watts - parts_watts, rules)
    verdict = (
        f"parts sum to {_percent(ratio)} of the feeder over {whole.known_s:.0f} s"
        f" ({_kw(parts_watts)} of {_kw(feeder_watts)}{_drift_words(drift)}){judgement}"
    )
    return Conservation(good, verdict, whole.known_s, feeder_watts, parts_watts, ratio, drift)


def _judgement(ratio: float, drift: float | None, missing_watts: float, rules: ConservationRules) -> tuple[bool, str]:
    if ratio < rules.min_fraction:
        return False, f": below {_percent(rules.min_fraction)}, no part measures {_kw(missing_watts)}"
    if ratio > rules.max_fraction:
        return False, f": above {_percent(rules.max_fraction)}, something is counted twice or a scale is wrong"
    if drift is not None and abs(drift) > rules.max_drift_fraction:
        return False, f": drifts by more than {_percent(rules.max_drift_fraction)}, a part or a load came or went"
    return True, ""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Between two neighbouring moments, both sides known."""

    from_s: float
    to_s: float
    feeder_joules: float
    parts_joules: float


@dataclass(frozen=True, slots=True)
class _Sums:
    known_s: float
    feeder_joules: float
    parts_joules: float

    @classmethod
    def over(cls, stretches: Sequence[_Stretch]) -> _Sums:
        return cls(
            sum(one.to_s - one.from_s for one in stretches),
            sum(one.feeder_joules for one in stretches),
            sum(one.parts_joules for one in stretches),
        )

    @property
    def ratio(self) -> float | None:
        return self.parts_joules / self.feeder_joules if self.feeder_joules > 0 else None


def _known_stretches(moments: Sequence[BothSides], max_gap_s: float) -> list[_Stretch]:
    found = []
    for before, after in pairwise(moments):
        span_s = after.at_s - before.at_s
        ends = (before.feeder_watts, after.feeder_watts, before.parts_watts, after.parts_watts)
        if not 0 < span_s <= max_gap_s or None in ends:
            continue
        feeder_before, feeder_after, parts_before, parts_after = (end or 0.0 for end in ends)
        found.append(
            _Stretch(
                before.at_s,
                after.at_s,
                span_s * (feeder_before + feeder_after) / 2,
                span_s * (parts_before + parts_after) / 2,
            )
        )
    return found


def _drift(known: Sequence[_Stretch]) -> float | None:
    """None while one half has no ratio, or hardly any of what is known lies in it."""
    middle_s = (known[0].from_s + known[-1].to_s) / 2
    older = _Sums.over([one for one in known if one.to_s <= middle_s])
    newer = _Sums.over([one for one in known if one.from_s >= middle_s])
    if min(older.known_s, newer.known_s) < LEAST_HALF * (older.known_s + newer.known_s):
        return None
    return None if older.ratio is None or newer.ratio is None else newer.ratio - older.ratio


def _drift_words(drift: float | None) -> str:
    return "" if drift is None else f"; drift {percent_from_fraction(drift):+.1f} %"


def _percent(fraction: float) -> str:
    return f"{percent_from_fraction(fraction):.1f} %"


def _kw(watts: float) -> str:
    return f"{kw_from_watts(watts):.2f} kW"
