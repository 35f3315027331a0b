"""What each rank brings to a step boundary, as a row of whole numbers; the highest of each column holds for all. Pure.

So one small collective a step tells every rank the same: rank 0's decisions, and what only one rank may know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """0: nothing of the kind."""

    stop: int = 0
    """Any rank: 1 + milliseconds since its power signal."""

    save_failed: int = 0
    save_busy: int = 0
    data_failed: int = 0
    """Any rank: its text for the next step cannot be read."""

    micro_sequences: int = 0
    """Rank 0: the micro-batch from the next step on."""

    checkpoint: int = 0
    """Rank 0: 1 to save before the next step."""

    pause_ms: int = 0
    """Rank 0: wait so long and ask again instead of stepping."""

    def row(self) -> list[int]:
        return [int(value) for value in astuple(self)]

    @classmethod
    def of(cls, row: Sequence[int]) -> Wishes:
        return cls(**dict(zip((field.name for field in fields(cls)), row, strict=True)))
