"""The streams of all ranks as one graph: what must be over before an instruction begins. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from training.errors import TrainingError
from training.planning.instructions import Compute, Exchange, Instruction, Stream
from training.planning.schedule import streams


@dataclass(frozen=True, slots=True)
class Precedence:
    """Instructions numbered so that whatever an instruction waits for has a smaller number."""

    instructions: tuple[Instruction, ...]
    rank: tuple[int, ...]
    after: tuple[tuple[int, ...], ...]
    """What each one waits for: what its rank did before, and of an exchange also what its peers did before theirs."""

    ranks: int


@lru_cache(maxsize=64)
def schedule_precedence(schedule: str, ranks: int, micro_batches: int) -> Precedence:
    """Raise ConfigError for an unknown schedule or too few micro-batches."""
    return precedence(streams(schedule, ranks, micro_batches))


def precedence(ranks: Sequence[Stream]) -> Precedence:
    """Raise TrainingError for streams that wait for each other for ever, or for a result that nobody sends."""
    nodes = [(rank, position) for rank, stream in enumerate(ranks) for position in range(len(stream))]
    meetings = _meetings(ranks)
    waits = {node: _waits_for(node, ranks, meetings) for node in nodes}
    order = _topological(nodes, waits)
    number = {node: index for index, node in enumerate(order)}
    return Precedence(
        instructions=tuple(ranks[rank][position] for rank, position in order),
        rank=tuple(rank for rank, _ in order),
        after=tuple(tuple(sorted(number[earlier] for earlier in waits[node])) for node in order),
        ranks=len(ranks),
    )


_Node = tuple[int, int]


def _meetings(ranks: Sequence[Stream]) -> dict[Compute, list[_Node]]:
    """The two exchanges, by rank and position, in which each result leaves and arrives."""
    meetings: dict[Compute, list[_Node]] = defaultdict(list)
    for rank, stream in enumerate(ranks):
        for position, instruction in enumerate(stream):
            if isinstance(instruction, Exchange):
                for result in (*instruction.sends, *instruction.receives):
                    meetings[result].append((rank, position))
    for result, sides in meetings.items():
        if len(sides) != 2:
            raise TrainingError(f"schedule: {result} is named by {len(sides)} exchanges instead of two")
    return meetings


def _waits_for(node: _Node, ranks: Sequence[Stream], meetings: dict[Compute, list[_Node]]) -> set[_Node]:
    rank, position = node
    instruction = ranks[rank][position]
    sides = {node}
    if isinstance(instruction, Exchange):
        sides |= {side for result in (*instruction.sends, *instruction.receives) for side in meetings[result]}
    return {(r, p - 1) for r, p in sides if p > 0}


def _topological(nodes: Sequence[_Node], waits: dict[_Node, set[_Node]]) -> list[_Node]:
    open_waits = {node: len(waits[node]) for node in nodes}
    waiters: dict[_Node, list[_Node]] = defaultdict(list)
    for node in nodes:
        for earlier in waits[node]:
            waiters[earlier].append(node)
    order = [node for node in nodes if open_waits[node] == 0]
    for node in order:  # grows while it is read
        for waiter in waiters[node]:
            open_waits[waiter] -= 1
            if open_waits[waiter] == 0:
                order.append(waiter)
    if len(order) < len(nodes):
        raise TrainingError(f"schedule: {len(nodes) - len(order)} instructions wait for each other for ever")
    return order
