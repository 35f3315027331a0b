"""Who has to make room, and how: copied to host memory, or dropped and computed again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Way(Enum):
    SWAP = "swap"
    RECOMPUTE = "recompute"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionRule:
    """The rates are measured at start. What is copied out is copied back too."""

    mode: Literal["auto", "swap", "recompute"] = "auto"
    block_bytes: int
    block_tokens: int
    copy_bytes_per_s: float
    prefill_tokens_per_s: float

    def choose(self, *, computed_tokens: int, blocks: int, host_free_blocks: int) -> Way:
        """The cheaper way for this sequence. Swapping needs room in the host's pool."""
        if blocks == 0 or blocks > host_free_blocks or self.mode == "recompute":
            return Way.RECOMPUTE
        if self.mode == "swap":
            return Way.SWAP
        cheaper = self.swap_s(blocks) <= self.recompute_s(computed_tokens)
        return Way.SWAP if cheaper else Way.RECOMPUTE

    def swap_s(self, blocks: int) -> float:
        return 2 * blocks * self.block_bytes / self.copy_bytes_per_s

    def recompute_s(self, tokens: int) -> float:
        return tokens / self.prefill_tokens_per_s
