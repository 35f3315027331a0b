"""The picture of a replayed load: what was drawn and what was imported, on the days around the highest peak."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib.figure import Figure

from slurm_power.monitoring.local_time import Numbers
from slurm_power.replay.site_load import SiteLoad

_SHOWN_DAYS = 7


def draw_load(case: SiteLoad, import_watts: Numbers, file: Path) -> None:
    """The whole record as daily peaks, and a week around the highest one."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    above, below = figure.subplots(2, 1)
    times = [datetime.fromtimestamp(start, UTC) for start in case.starts.tolist()]
    slots = max(1, round(86_400 / case.slot_s))
    whole = case.watts.size // slots * slots
    days = times[:whole:slots]
    for watts, label in ((case.watts, "load"), (import_watts, "import with the battery")):
        above.plot(days, watts[:whole].reshape(-1, slots).max(axis=1) / 1000, label=label)
    above.set_ylabel("highest of the day, kW")
    above.legend()
    middle, half = int(np.argmax(case.watts)), _SHOWN_DAYS * slots // 2
    shown = slice(max(0, middle - half), middle + half)
    below.plot(times[shown], case.watts[shown] / 1000, label="load")
    below.plot(times[shown], import_watts[shown] / 1000, label="import with the battery")
    below.set_ylabel("kW")
    below.legend()
    figure.savefig(file, dpi=120)
