"""What a node draws beside its GPUs, shared out among those who hold its GPUs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from slurm_power.monitoring.energy_marks import Stretch


@dataclass(frozen=True, slots=True)
class NodeMark:
    node: str
    wall_s: float
    life_wall_s: float
    up_s: float
    gpus: int
    cpu_joules: float | None  # CPUs and memory, by their counters; None: not counted
    rest_joules: float | None  # the node's base without them; None: not known


@dataclass(frozen=True, slots=True)
class Beside:
    """Energy of a node, or a share of it, that no GPU drew. None: not counted, or not known."""

    cpu_joules: float | None = None
    rest_joules: float | None = None

    def __add__(self, other: Beside) -> Beside:
        return Beside(_sum(self.cpu_joules, other.cpu_joules), _sum(self.rest_joules, other.rest_joules))

    def part(self, fraction: float) -> Beside:
        return Beside(_part(self.cpu_joules, fraction), _part(self.rest_joules, fraction))

    @property
    def joules(self) -> float:
        """What is known of it."""
        return (self.cpu_joules or 0.0) + (self.rest_joules or 0.0)


@dataclass(frozen=True, slots=True)
class NodeStretch:
    node: str
    from_wall_s: float
    to_wall_s: float
    gpus: int
    beside: Beside


def node_stretches_of(marks: Iterable[NodeMark]) -> list[NodeStretch]:
    """Between two marks of one life of the agent; over a restart nothing is known."""
    by_node: dict[str, list[NodeMark]] = {}
    for mark in marks:
        by_node.setdefault(mark.node, []).append(mark)
    found = []
    for node in sorted(by_node):
        in_order = sorted(by_node[node], key=lambda mark: (mark.life_wall_s, mark.up_s))
        before = in_order[0]
        for after in in_order[1:]:
            one_life = before.life_wall_s == after.life_wall_s
            if one_life and after.wall_s <= before.wall_s:
                continue  # at the same moment, or the clock was set back: the next mark tells all of it
            if one_life:
                found.append(_stretch(before, after))
            before = after
    return found


def _stretch(before: NodeMark, after: NodeMark) -> NodeStretch:
    cpu_joules, rest_joules = _rise(before.cpu_joules, after.cpu_joules), _rise(before.rest_joules, after.rest_joules)
    return NodeStretch(before.node, before.wall_s, after.wall_s, before.gpus, Beside(cpu_joules, rest_joules))


@dataclass(frozen=True, slots=True)
class NodeSample:
    wall_s: float
    base_watts: float | None
    cpu_watts: float | None


def node_tail(last: NodeMark, samples: Sequence[NodeSample], *, max_gap_s: float = 15.0) -> list[NodeStretch]:
    """What a node has used since its last mark: the integral of its samples, in time order."""
    found = []
    for before, after in pairwise(samples):
        span_s = after.wall_s - before.wall_s
        if 0 < span_s <= max_gap_s and before.wall_s >= last.wall_s:
            cpu, base = (
                _integral(before.cpu_watts, after.cpu_watts, span_s),
                _integral(before.base_watts, after.base_watts, span_s),
            )
            rest = None if base is None else max(0.0, base - (cpu or 0.0))
            found.append(NodeStretch(last.node, before.wall_s, after.wall_s, last.gpus, Beside(cpu, rest)))
    return found


def shares_of(stretches: Sequence[Stretch], nodes: Sequence[NodeStretch]) -> list[Beside]:
    """For each GPU's stretch its share: of n GPUs each carries one nth of what the node draws beside them."""
    by_node: dict[str, list[NodeStretch]] = {}
    for one in nodes:
        by_node.setdefault(one.node, []).append(one)
    order = sorted(range(len(stretches)), key=lambda index: (stretches[index].node, stretches[index].from_wall_s))
    shares = [Beside()] * len(stretches)
    first: dict[str, int] = {}
    for index in order:
        stretch = stretches[index]
        known = by_node.get(stretch.node, [])
        at = first.get(stretch.node, 0)
        while at < len(known) and known[at].to_wall_s <= stretch.from_wall_s:
            at += 1
        first[stretch.node] = at  # stretches come by their begin: what is over by then stays over
        for one in known[at:]:
            if one.from_wall_s >= stretch.to_wall_s:
                break
            shares[index] += _share(stretch, one)
    return shares


def beside_by_node(nodes: Iterable[NodeStretch]) -> Mapping[str, Beside]:
    sums: dict[str, Beside] = {}
    for one in nodes:
        sums[one.node] = sums.get(one.node, Beside()) + one.beside
    return sums


def within(nodes: Iterable[NodeStretch], since_wall_s: float, until_wall_s: float) -> list[NodeStretch]:
    found = []
    for one in nodes:
        begin_s, end_s = max(one.from_wall_s, since_wall_s), min(one.to_wall_s, until_wall_s)
        if end_s > begin_s:
            share = (end_s - begin_s) / (one.to_wall_s - one.from_wall_s)
            found.append(NodeStretch(one.node, begin_s, end_s, one.gpus, one.beside.part(share)))
    return found


def _share(stretch: Stretch, node: NodeStretch) -> Beside:
    overlap_s = min(stretch.to_wall_s, node.to_wall_s) - max(stretch.from_wall_s, node.from_wall_s)
    if overlap_s <= 0 or node.gpus <= 0:
        return Beside()
    return node.beside.part(overlap_s / (node.to_wall_s - node.from_wall_s) / node.gpus)


def _rise(before: float | None, after: float | None) -> float | None:
    if after is None:
        return None
    return max(0.0, after - (before or 0.0))


def _integral(before_watts: float | None, after_watts: float | None, span_s: float) -> float | None:
    return None if before_watts is None or after_watts is None else span_s * (before_watts + after_watts) / 2


def _sum(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else one + other


def _part(joules: float | None, fraction: float) -> float | None:
    return None if joules is None else joules * fraction
