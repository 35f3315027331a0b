"""The words of a pipeline schedule: computations and the exchanges between them. Pure.

A stage is a part of the model; with DualPipeV rank r of p holds the stages r and 2p-1-r.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Pass(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"


FORWARD, BACKWARD = Pass.FORWARD, Pass.BACKWARD


@dataclass(frozen=True, slots=True)
class Compute:
    """One micro-batch through one stage, one way."""

    direction: Pass
    stage: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """Results that leave or arrive together; over only when every peer has come to its side of it.

    A result is named by the computation that made it: FORWARD of stage s goes to s+1, BACKWARD of s to s-1.
    """

    sends: tuple[Compute, ...] = ()
    receives: tuple[Compute, ...] = ()


Instruction = Compute | Exchange
Stream = tuple[Instruction, ...]
"""What one rank does in one step, in order."""


def rank_of_stage(stage: int, ranks: int) -> int:
    return stage if stage < ranks else 2 * ranks - 1 - stage


def computes(stream: Iterable[Instruction]) -> list[Compute]:
    return [instruction for instruction in stream if isinstance(instruction, Compute)]


def leaves_rank(done: Compute, *, ranks: int, stages: int) -> bool:
    """Whether another rank needs this result."""
    target = done.stage + (1 if done.direction is FORWARD else -1)
    return 0 <= target < stages and rank_of_stage(target, ranks) != rank_of_stage(done.stage, ranks)


def foreign_input(wanted: Compute, *, ranks: int, stages: int) -> tuple[Compute, ...]:
    """The result of another rank that this computation needs; empty if it needs none."""
    source = wanted.stage + (-1 if wanted.direction is FORWARD else 1)
    if 0 <= source < stages and rank_of_stage(source, ranks) != rank_of_stage(wanted.stage, ranks):
        return (replace(wanted, stage=source),)
    return ()
