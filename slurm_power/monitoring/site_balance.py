"""What of the grid import is neither IT nor battery: the load nobody here can move."""

from __future__ import annotations

from collections.abc import Iterable

from slurm_power.monitoring.readings import EssReading, GridReading, NodeReading


def it_draw_watts(nodes: Iterable[NodeReading]) -> float | None:
    """Sum over all nodes; None as soon as one node is unknown."""
    total = 0.0
    for node in nodes:
        draw = node.draw_watts
        if draw is None:
            return None
        total += draw
    return total


def inflexible_watts(
    grid: GridReading | None, *, ess: EssReading | None, it_watts: float | None, pue: float
) -> float | None:
    """Grid import - IT x PUE + discharge - charge; None if any part is unknown.

    Readings are not taken at one instant, so a small negative balance is noise and becomes zero.
    """
    load = site_load_watts(grid, ess=ess)
    if load is None or it_watts is None:
        return None
    return max(0.0, load - it_watts * pue)


def site_load_watts(grid: GridReading | None, *, ess: EssReading | None) -> float | None:
    """What the site draws behind the battery: import - export + discharge - charge."""
    if grid is None or ess is None:
        return None
    return grid.import_watts - grid.export_watts + ess.discharge_watts - ess.charge_watts
