"""A meter at the grid connection, and the meters below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from slurm_power.monitoring.readings import GridReading


class Meter(Protocol):
    def read(self) -> GridReading:
        """Raise Unavailable when the meter does not answer or says "not implemented"."""
        ...

    def close(self) -> None: ...


class PartMeters(Protocol):
    def read(self) -> tuple[Mapping[str, GridReading], Mapping[str, str]]:
        """Readings by name, and why the others are missing, by name: together every part."""
        ...

    def close(self) -> None: ...
