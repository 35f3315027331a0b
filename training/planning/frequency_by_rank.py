"""One clock a rank, held over the step: what a node's agent can set without seeing instructions. Pure.

Branch and bound over the ranks' clocks, started from a greedy choice; a slower clock never shortens a step, so what
does not fit with all open ranks at their fastest can be dropped with everything below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.errors import require
from training.planning.clock_profiles import OperatingPoint
from training.planning.frequency import (
    ROUNDING,
    FrequencyPlan,
    FrequencyTask,
    deadline_s,
    judged,
)
from training.planning.instructions import Compute
from training.planning.slack import length_s

DEFAULT_REPLAYS = 5000
RANK_TOLERANCE_FRACTION = 0.01
"""A tolerance to plan with. With none, ranks before the slowest keep their highest clock: the first and the last
micro-batch pass them on the longest path, however much they wait in between. A clock a pass knows the difference."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """One clock of one rank."""

    clock_mhz: int
    extra_joules: float
    points: dict[Compute, OperatingPoint]


def plan_by_rank(task: FrequencyTask, *, replays: int = DEFAULT_REPLAYS) -> FrequencyPlan:
    """`replays`: how many schedules may be tried; when they run out, the best so far is not proven to be the best.

    Raise ConfigError when a rank's stages have no clock in common.
    """
    search = _Search(task, [_settings(task, rank) for rank in range(task.ranks)], deadline_s(task), replays)
    search.descend_greedily()
    proven = search.branch()
    settings = [of_rank[index] for of_rank, index in zip(search.settings, search.best, strict=True)]
    choice = {compute: point for setting in settings for compute, point in setting.points.items()}
    clocks = tuple(setting.clock_mhz for setting in settings)
    return judged(task, choice, rank_clock_mhz=clocks, proven_best=proven)


def _settings(task: FrequencyTask, rank: int) -> list[_Setting]:
    """From the highest clock on, every slower one that needs less than all faster ones."""
    profile = task.profile
    mine = [c for c, of_rank in zip(task.graph.instructions, task.graph.rank, strict=True) if of_rank == rank]
    passes = [instruction for instruction in mine if isinstance(instruction, Compute)]
    shared = set.intersection(*({point.clock_mhz for point in profile.of(compute)} for compute in passes))
    highest = {profile.fastest(compute).clock_mhz for compute in passes}
    rule = "its passes must share their highest clock"
    require(highest <= shared and len(highest) == 1, f"clock profile of rank {rank}", sorted(highest), rule)
    settings: list[_Setting] = []
    for clock_mhz in sorted(shared, reverse=True):
        points = {compute: profile.at(compute, clock_mhz) for compute in passes}
        extra_joules = sum(profile.extra_joules(point) for point in points.values())
        if not settings or extra_joules < settings[-1].extra_joules:
            settings.append(_Setting(clock_mhz, extra_joules, points))
    return settings


class _Search:
    """Indices into each rank's settings; 0 is the highest clock."""

    def __init__(
        self, task: FrequencyTask, settings: Sequence[Sequence[_Setting]], limit_s: float, replays: int
    ) -> None:
        self.settings = settings
        self.best = [0] * len(settings)
        self._task, self._limit_s, self._replays_left = task, limit_s * (1.0 + ROUNDING), replays
        # Whoever can save most decides first.
        self._order = sorted(range(len(settings)), key=self._possible_joules)

    def _possible_joules(self, rank: int) -> float:
        return self.settings[rank][-1].extra_joules - self.settings[rank][0].extra_joules

    def descend_greedily(self) -> None:
        """One rank after the other takes the slowest clock that still fits."""
        for rank in self._order:
            self.best[rank] = self._slowest_that_fits(self.best, rank)

    def branch(self) -> bool:
        """Whether the search came to its end, so that `best` is the best."""
        alone = [0] * len(self.settings)
        floors = [self.settings[rank][self._slowest_that_fits(alone, rank)].extra_joules for rank in self._order]
        self._below([0] * len(self.settings), 0, floors)
        return self._replays_left > 0

    def _below(self, indices: list[int], depth: int, floors: Sequence[float]) -> None:
        if depth == len(self._order):
            if self._joules(indices) < self._joules(self.best):
                self.best = list(indices)
            return
        rank = self._order[depth]
        decided = sum(self.settings[r][indices[r]].extra_joules for r in self._order[:depth])
        for index in range(self._slowest_that_fits(indices, rank), -1, -1):
            bound = decided + self.settings[rank][index].extra_joules + sum(floors[depth + 1 :])
            if bound >= self._joules(self.best) or self._replays_left <= 0:
                return  # faster clocks of this rank only need more
            self._below([index if r == rank else i for r, i in enumerate(indices)], depth + 1, floors)

    def _joules(self, indices: Sequence[int]) -> float:
        return sum(of_rank[index].extra_joules for of_rank, index in zip(self.settings, indices, strict=True))

    def _slowest_that_fits(self, indices: Sequence[int], rank: int) -> int:
        """By bisection; that the given ones fit with `rank` at its highest clock is known."""
        fits, too_slow = 0, len(self.settings[rank])
        while too_slow - fits > 1:
            middle = (fits + too_slow) // 2
            if self._fits([middle if r == rank else i for r, i in enumerate(indices)]):
                fits = middle
            else:
                too_slow = middle
        return fits

    def _fits(self, indices: Sequence[int]) -> bool:
        self._replays_left -= 1
        task = self._task
        times_s = [
            self.settings[rank][indices[rank]].points[instruction].time_s
            if isinstance(instruction, Compute)
            else task.exchange_s
            for instruction, rank in zip(task.graph.instructions, task.graph.rank, strict=True)
        ]
        return length_s(task.graph, times_s) <= self._limit_s
