"""What is known of a board beside its readings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """None: nobody wrote it down."""

    product: str | None = None
    tdp_watts: float | None = None  # the limit as delivered
    max_sm_clock_mhz: float | None = None
    slowdown_celsius: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of one GPU that is reported on; until it: not in it."""

    begin_wall_s: float
    end_wall_s: float
