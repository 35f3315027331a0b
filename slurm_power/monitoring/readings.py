"""Readings: a value and when it was taken. Unknown is None, never 0. Power is never signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class GridReading:
    """Power through the grid connection. At most one direction is above zero."""

    import_watts: float
    export_watts: float
    taken_at_s: float  # monotonic clock of the host that read it


@dataclass(frozen=True, slots=True)
class EssReading:
    """Battery and PCS as the PCS tells it. `remote_allowed` False means: somebody stands at the panel."""

    stored_fraction: float  # state of charge, 0-1
    health_fraction: float | None  # state of health, 0-1
    capacity_joules: float
    max_charge_watts: float
    max_discharge_watts: float
    charge_watts: float
    discharge_watts: float
    remote_allowed: bool
    alarms: tuple[str, ...]
    taken_at_s: float
    available_joules: float | None = None  # what the device itself says it could still give; not every one does


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU as its node's agent reports it."""

    uuid: str
    draw_watts: float | None
    energy_joules: float | None  # total since driver load; None where the counter is missing
    sm_clock_mhz: int | None
    temperature_celsius: float | None
    utilisation_fraction: float | None
    cap_watts: float | None  # the limit the board enforces now
    cap_source: str  # "found" | "user" | "lease" | "safe" | "board": who asked for that cap
    job_id: int | None
    error: str | None = None  # why the values are None


@dataclass(frozen=True, slots=True)
class NodeReading:
    """One node: its GPUs and what the rest of it draws."""

    node_name: str
    base_watts: float | None  # everything but the GPUs
    gpus: tuple[GpuReading, ...]
    taken_at_s: float

    @property
    def draw_watts(self) -> float | None:
        """Sum over the node; None as soon as one part is unknown."""
        parts = [self.base_watts, *(gpu.draw_watts for gpu in self.gpus)]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


class _Aged(Protocol):
    @property
    def taken_at_s(self) -> float: ...


A = TypeVar("A", bound=_Aged)


def age_s(reading: _Aged, *, now_s: float) -> float:
    return now_s - reading.taken_at_s


def fresh(reading: A | None, *, now_s: float, max_age_s: float) -> A | None:
    """The reading if it is young enough; None means "we do not know"."""
    if reading is None or now_s - reading.taken_at_s > max_age_s:
        return None
    return reading


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one tick observed. What could not be read is None or absent, and `failures` says why."""

    now_s: float
    wall_s: float
    grid: GridReading | None = None
    ess: EssReading | None = None
    nodes: Mapping[str, NodeReading] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
