"""A clock for every pass: the relaxed optimum, rounded to clocks that exist, never to slower ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from training.planning.clock_profiles import Key, OperatingPoint, frontier
from training.planning.frequency import ROUNDING, FrequencyPlan, FrequencyTask, deadline_s, durations_s, judged
from training.planning.frequency_program import relaxed_times_s
from training.planning.instructions import Compute
from training.planning.slack import earliest_ends_s, latest_ends_s, length_s

Points = dict[Compute, OperatingPoint]
Frontiers = Mapping[Key, tuple[OperatingPoint, ...]]


def plan_by_pass(task: FrequencyTask) -> FrequencyPlan:
    """Raise ConfigError for a stage that was not profiled, Unavailable when the solver finds no optimum."""
    limit_s = deadline_s(task)
    times_s = relaxed_times_s(task.graph, task.profile, deadline_s=limit_s, exchange_s=task.exchange_s)
    frontiers = {key: frontier(points, task.profile.waiting_watts) for key, points in task.profile.points.items()}
    choice = {
        compute: _no_slower(frontiers[compute.stage, compute.direction], time_s) for compute, time_s in times_s.items()
    }
    _speed_up(task, choice, frontiers, limit_s)
    _use_what_is_left(task, choice, frontiers, limit_s)
    return judged(task, choice)


def _no_slower(points: tuple[OperatingPoint, ...], time_s: float) -> OperatingPoint:
    return next((point for point in reversed(points) if point.time_s <= time_s * (1.0 + ROUNDING)), points[0])


def _speed_up(task: FrequencyTask, choice: Points, frontiers: Frontiers, limit_s: float) -> None:
    """The solver keeps its rows to 1e-7 only: give back what it took too much."""
    while True:
        late = _durations(task, choice)
        if length_s(task.graph, late) <= limit_s * (1.0 + ROUNDING):
            return
        ends_s, latest_s = earliest_ends_s(task.graph, late), latest_ends_s(task.graph, late, limit_s)
        for number, compute in enumerate(task.graph.instructions):
            if isinstance(compute, Compute) and ends_s[number] > latest_s[number]:
                points = frontiers[compute.stage, compute.direction]
                choice[compute] = points[max(0, points.index(choice[compute]) - 1)]


def _use_what_is_left(task: FrequencyTask, choice: Points, frontiers: Frontiers, limit_s: float) -> None:
    """From the last pass to the first, each takes what rounding has left to it, so that later ones keep their own."""
    graph = task.graph
    times_s = _durations(task, choice)
    ends_s = earliest_ends_s(graph, times_s)
    latest_s = [limit_s] * len(times_s)
    for number in reversed(range(len(times_s))):
        compute = graph.instructions[number]
        if isinstance(compute, Compute):
            start_s = ends_s[number] - times_s[number]
            slower = _no_slower(frontiers[compute.stage, compute.direction], latest_s[number] - start_s)
            choice[compute] = max(choice[compute], slower)
            times_s[number] = choice[compute].time_s
        for earlier in graph.after[number]:
            latest_s[earlier] = min(latest_s[earlier], latest_s[number] - times_s[number])


def _durations(task: FrequencyTask, choice: Points) -> list[float]:
    return durations_s(task, lambda compute: choice[compute].time_s)
