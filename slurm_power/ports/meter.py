"""A meter at the grid connection."""

from __future__ import annotations

from typing import Protocol

from slurm_power.monitoring.readings import GridReading


class Meter(Protocol):
    def read(self) -> GridReading:
        """Raise Unavailable when the meter does not answer or says "not implemented"."""
        ...

    def close(self) -> None: ...
