"""The length of a step with many micro-batches, from a replay of few: once full, a pipeline repeats itself. Pure."""

from __future__ import annotations

from training.planning.replay import StageTimes, replay_schedule


def makespan_s(schedule: str, ranks: int, micro_batches: int, times: StageTimes, *, exchange_s: float = 0.0) -> float:
    """As a replay of all micro-batches has it, but in time that does not grow with them."""

    def replayed_s(count: int) -> float:
        return replay_schedule(schedule, ranks, count, times, exchange_s=exchange_s).makespan_s

    few = 8 * ranks  # the schedules need 2 to fill and drain; with unequal stages the rhythm settles later
    if micro_batches <= few + ranks:
        return replayed_s(micro_batches)
    per_micro_batch_s = (replayed_s(few + ranks) - replayed_s(few)) / ranks
    return replayed_s(few) + (micro_batches - few) * per_micro_batch_s
