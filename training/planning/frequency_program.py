"""The least energy of a step of given length, were clocks continuous: a linear program over all passes. Pure.

Perseus (SOSP'24) trades time for energy along cuts of the critical path; on a convex frontier this program has the
same optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import highspy
import numpy as np

from training.errors import Unavailable
from training.planning.clock_profiles import ClockProfile, OperatingPoint, frontier
from training.planning.instructions import Compute
from training.planning.precedence import Precedence


def relaxed_times_s(
    graph: Precedence, profile: ClockProfile, *, deadline_s: float, exchange_s: float = 0.0
) -> dict[Compute, float]:
    """How long each pass may take, so that the step ends by `deadline_s` and needs least.

    Raise Unavailable when HiGHS finds no optimum; there is one whenever the fastest clocks meet the deadline.
    """
    program = _Program(unit_s=deadline_s)
    hulls = {key: convex_hull(points, profile.waiting_watts) for key, points in profile.points.items()}
    starts = [program.seconds(upper=deadline_s) for _ in graph.instructions]
    stretches: dict[int, list[int]] = {}
    fixed_s: list[float] = []
    for number, instruction in enumerate(graph.instructions):
        if isinstance(instruction, Compute):
            profile.of(instruction)
            hull = hulls[instruction.stage, instruction.direction]
            stretches[number] = [
                program.seconds(upper=slow.time_s - fast.time_s, cost=_slope(fast, slow, profile))
                for fast, slow in pairwise(hull)
            ]
            fixed_s.append(hull[0].time_s)
        else:
            fixed_s.append(exchange_s)
        for earlier in graph.after[number]:
            terms = {starts[number]: 1.0, starts[earlier]: -1.0} | dict.fromkeys(stretches.get(earlier, ()), -1.0)
            program.at_least(terms, fixed_s[earlier])
        last = {starts[number]: -1.0} | dict.fromkeys(stretches.get(number, ()), -1.0)
        program.at_least(last, fixed_s[number] - deadline_s)
    values = program.solve()
    return {
        instruction: fixed_s[number] + sum(values[column] for column in stretches[number])
        for number, instruction in enumerate(graph.instructions)
        if isinstance(instruction, Compute)
    }


def convex_hull(points: Sequence[OperatingPoint], waiting_watts: float) -> tuple[OperatingPoint, ...]:
    """The part of the frontier that mixtures of two other points do not beat, fastest first."""
    hull: list[OperatingPoint] = []

    def extra(point: OperatingPoint) -> float:
        return point.energy_joules - waiting_watts * point.time_s

    for point in frontier(points, waiting_watts):
        while len(hull) >= 2:
            before, last = hull[-2:]
            rise = (extra(point) - extra(before)) * (last.time_s - before.time_s)
            if (extra(last) - extra(before)) * (point.time_s - before.time_s) < rise:
                break
            hull.pop()
        hull.append(point)
    return tuple(hull)


def _slope(fast: OperatingPoint, slow: OperatingPoint, profile: ClockProfile) -> float:
    return (profile.extra_joules(slow) - profile.extra_joules(fast)) / (slow.time_s - fast.time_s)


@dataclass(slots=True)
class _Program:
    """Minimise cost. No variable is negative; `unit_s` keeps them near 1, where the solver's tolerances are meant."""

    unit_s: float
    _cost: list[float] = field(default_factory=list)
    _upper: list[float] = field(default_factory=list)
    _rows: list[dict[int, float]] = field(default_factory=list)
    _least: list[float] = field(default_factory=list)

    def seconds(self, *, upper: float, cost: float = 0.0) -> int:
        self._upper.append(upper / self.unit_s)
        self._cost.append(cost)
        return len(self._cost) - 1

    def at_least(self, terms: dict[int, float], least: float) -> None:
        self._rows.append(terms)
        self._least.append(least / self.unit_s)

    def solve(self) -> list[float]:
        highs = highspy._core._Highs()  # what Highs() adds to it prints a banner on stdout
        highs.setOptionValue("output_flag", False)
        highs.setOptionValue("threads", 1)
        highs.passModel(self._model())
        highs.run()
        status = highs.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise Unavailable(f"frequency plan: HiGHS ends with {highs.modelStatusToString(status)}")
        return [value * self.unit_s for value in highs.getSolution().col_value]

    def _model(self) -> highspy.HighsLp:
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self._cost), len(self._rows)
        lp.col_cost_ = np.array(self._cost)
        lp.col_lower_, lp.col_upper_ = np.zeros(len(self._cost)), np.array(self._upper)
        lp.row_lower_, lp.row_upper_ = np.array(self._least), np.full(len(self._rows), highspy.kHighsInf)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *map(len, self._rows)]).astype(np.int32)
        lp.a_matrix_.index_ = np.array([column for row in self._rows for column in row], dtype=np.int32)
        lp.a_matrix_.value_ = np.array([value for row in self._rows for value in row.values()])
        return lp
