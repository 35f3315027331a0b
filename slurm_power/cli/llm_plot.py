"""The picture of simulated fleets: power over time, and what each policy took and kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib.figure import Figure

from slurm_power.replay.serving.result import Outcome
from slurm_power.units import kw_from_watts, kwh_from_joules

_MOST_POINTS = 1500


def draw_fleet(found: Mapping[str, Outcome], file: Path) -> None:
    figure = Figure(figsize=(11, 8), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(2, 1))
    for name, one in found.items():
        step = max(1, one.watts.size // _MOST_POINTS)
        whole = max(1, one.watts.size // step) * step
        watts = one.watts[:whole].reshape(-1, step).mean(axis=1)
        above.plot(np.arange(watts.size) * step / 60.0, [kw_from_watts(x) for x in watts], label=name, linewidth=0.9)
    above.set_xlabel("hours")
    above.set_ylabel("GPUs, kW")
    above.set_ylim(bottom=0.0)
    above.legend(ncols=4, fontsize="small")
    names = list(found)
    bars = below.barh(names, [kwh_from_joules(found[name].energy_joules) for name in names])
    below.bar_label(bars, [f"{found[name].attainment_fraction:.2%} kept" for name in names], padding=3, fontsize=8)
    below.set_xlabel("kWh")
    below.margins(x=0.2)
    below.invert_yaxis()
    figure.savefig(file, dpi=120)
