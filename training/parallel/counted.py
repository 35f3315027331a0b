"""Every collective of ours goes through here and is counted: calls and payload bytes, by axis and by purpose.

The payload is what this rank hands to the collective, not what an algorithm makes of it on the wire: a ring all-reduce
of n bytes moves 2 (t - 1) / t n.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from training.parallel.context import Axis


@dataclass(slots=True)
class Counter:
    """Counts of one rank, since the start or the last `reset`."""

    _tally: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, axis: str, name: str, payload_bytes: int) -> None:
        entry = self._tally[axis, name]
        entry[0] += 1
        entry[1] += payload_bytes

    @property
    def bytes_by_axis(self) -> dict[str, dict[str, int]]:
        """{"tensor": {"calls": 8, "bytes": 4096}, ...}; an axis that carried nothing is missing."""
        return self._grouped(lambda axis, name: axis)

    @property
    def bytes_by_name(self) -> dict[str, dict[str, int]]:
        """{"expert.dispatch": {"calls": 2, "bytes": 4224}, ...}"""
        return self._grouped(lambda axis, name: f"{axis}.{name}")

    def _grouped(self, key: Any) -> dict[str, dict[str, int]]:
        result: dict[str, dict[str, int]] = {}
        for (axis, name), (calls, payload_bytes) in self._tally.items():
            entry = result.setdefault(key(axis, name), {"calls": 0, "bytes": 0})
            entry["calls"] += calls
            entry["bytes"] += payload_bytes
        return result

    def reset(self) -> None:
        self._tally.clear()


COUNTER = Counter()

_OPERATIONS: Mapping[str, Any] = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


def all_reduce(tensor: Any, axis: Axis, *, name: str, operation: str = "sum") -> None:
    """In place. Nothing happens on an axis of one rank."""
    if axis.size == 1:
        return
    COUNTER.add(axis.name, name, tensor.numel() * tensor.element_size())
    dist.all_reduce(tensor, op=_OPERATIONS[operation], group=axis.group)


def all_to_all(rows: Any, axis: Axis, *, send: Sequence[int], receive: Sequence[int], name: str) -> Any:
    """`send[r]` rows of `rows` [sum(send), ...] go to rank r; the result [sum(receive), ...] holds theirs, by rank."""
    received = rows.new_empty((sum(receive), *rows.shape[1:]))
    COUNTER.add(axis.name, name, rows.numel() * rows.element_size())
    dist.all_to_all_single(received, rows.contiguous(), list(receive), list(send), group=axis.group)
    return received
