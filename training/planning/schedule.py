"""Instruction streams of one step for every pipeline rank, in the order of DeepSpeed's own schedules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from training.errors import require
from training.planning.dualpipev import dualpipev
from training.planning.instructions import (
    BACKWARD,
    FORWARD,
    Compute,
    Exchange,
    Instruction,
    Stream,
    foreign_input,
    leaves_rank,
)


def streams(schedule: str, ranks: int, micro_batches: int) -> tuple[Stream, ...]:
    """One stream a rank. Raise ConfigError for an unknown schedule or too few micro-batches."""
    require(ranks >= 1, "pipeline", ranks, "must be at least 1")
    require(micro_batches >= 1, "micro_batches", micro_batches, "must be at least 1")
    require(schedule in SCHEDULES, "schedule", schedule, f"must be one of {', '.join(SCHEDULES)}")
    return tuple(SCHEDULES[schedule](rank, ranks, micro_batches) for rank in range(ranks))


def one_f_one_b(rank: int, ranks: int, micro_batches: int) -> Stream:
    """As deepspeed.runtime.pipe.schedule.TrainSchedule: forward passes in slots rank + 2i, backward in 2p-1-rank + 2i.

    A slot first gives the previous slot's result away and takes what it needs itself, both with the same neighbour.
    """
    return tuple(_slots(rank, ranks, micro_batches))


def _slots(rank: int, ranks: int, micro_batches: int) -> Iterator[Instruction]:
    previous: Compute | None = None
    for slot in range(2 * (micro_batches + ranks - 1) + 1):
        current = _in_slot(slot, rank, ranks, micro_batches)
        sends = (previous,) if previous and leaves_rank(previous, ranks=ranks, stages=ranks) else ()
        receives = foreign_input(current, ranks=ranks, stages=ranks) if current else ()
        if sends or receives:
            yield Exchange(sends, receives)
        if current:
            yield current
        previous = current


def _in_slot(slot: int, rank: int, ranks: int, micro_batches: int) -> Compute | None:
    direction, first = (FORWARD, rank) if (slot - rank) % 2 == 0 else (BACKWARD, 2 * ranks - 1 - rank)
    micro_batch = (slot - first) // 2
    return Compute(direction, rank, micro_batch) if 0 <= micro_batch < micro_batches else None


SCHEDULES: dict[str, Callable[[int, int, int], Stream]] = {"1f1b": one_f_one_b, "dualpipev": dualpipev}
