"""What cycling costs the cells: cycles by rainflow counting (ASTM E1049), deep ones weighing more. Pure.

Cycle life over depth as a power law: N(depth) = full_depth_cycles x depth^-exponent, wear adding up by Miner's rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import rainflow

from slurm_power.errors import require


@dataclass(frozen=True, slots=True)
class Cycle:
    depth_fraction: float  # of the capacity, 0 to 1
    count: float  # 0.5 for a half cycle


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLife:
    """A maker's statement. The defaults are one of them (LFP cells, 6,000 cycles at 80 % depth), not a measurement."""

    rated_cycles: float = 6000.0
    rated_depth_fraction: float = 0.8
    depth_exponent: float = 1.3
    """Above 1: one deep cycle wears more than as much energy in shallow ones."""

    replacement_cost_per_kwh: float = 0.0
    """Money per kWh of capacity when the cells are worn out."""

    def __post_init__(self) -> None:
        require(self.rated_cycles > 0, "rated_cycles", self.rated_cycles, "must be above 0")
        depth = self.rated_depth_fraction
        require(0 < depth <= 1, "rated_depth_fraction", depth, "must be in (0, 1]")
        require(self.depth_exponent >= 1, "depth_exponent", self.depth_exponent, "must be at least 1")
        cost = self.replacement_cost_per_kwh
        require(cost >= 0, "replacement_cost_per_kwh", cost, "must not be below 0")

    def used_fraction(self, cycles: Sequence[Cycle]) -> float:
        """Of the cells' life."""
        rated, exponent = self.rated_depth_fraction, self.depth_exponent
        return float(sum(one.count * (one.depth_fraction / rated) ** exponent for one in cycles)) / self.rated_cycles


@dataclass(frozen=True, slots=True)
class Wear:
    cycles: tuple[Cycle, ...]
    used_fraction: float
    cost_per_kwh: float | None
    """Money per kWh taken out of the cells that makes a linear price of it: what `[battery] wear_cost_per_kwh` should
    be for such use. None: nothing was discharged."""

    @property
    def deepest_fraction(self) -> float:
        return max((one.depth_fraction for one in self.cycles), default=0.0)

    @property
    def full_cycles(self) -> float:
        """The same energy as cycles of the whole capacity."""
        return sum(one.count * one.depth_fraction for one in self.cycles)


def counted_cycles(stored_fractions: Sequence[float]) -> tuple[Cycle, ...]:
    """The cycles of a state of charge over time; what is not closed counts as half cycles."""
    series = [*stored_fractions, *stored_fractions[-1:]]  # two samples alone would be no series to the library
    return tuple(Cycle(depth, count) for depth, _, count, _, _ in rainflow.extract_cycles(series))


def wear_of(stored_fractions: Sequence[float], life: CellLife) -> Wear:
    cycles = counted_cycles(stored_fractions)
    used = life.used_fraction(cycles)
    moved = sum(one.count * one.depth_fraction for one in cycles)
    return Wear(cycles, used, used * life.replacement_cost_per_kwh / moved if moved > 0 else None)
