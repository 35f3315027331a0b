"""Where this rank stands on every axis. Handed to whatever communicates; nothing reads global state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the rank grid, seen from one rank."""

    name: str
    rank: int = 0
    size: int = 1
    group: Any = field(default=None, compare=False, repr=False)
    """The torch process group of the ranks along this axis; None when the axis has one rank."""


@dataclass(frozen=True, slots=True)
class ParallelContext:
    pipe: Axis = Axis("pipe")
    data: Axis = Axis("data")
    tensor: Axis = Axis("tensor")
    expert: Axis = Axis("expert")
    """A part of the data axis: ranks that share one set of experts."""

    expert_data: Axis = Axis("expert_data")
    """The rest of the data axis: ranks that hold the same experts."""


SINGLE = ParallelContext()
