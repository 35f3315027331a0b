"""The billing period's account: the open metering interval and the peak already set. Survives restarts.

It is written when an interval closes; after a `kill -9` the part of the open interval that was measured
is unknown, and the battery loop then assumes the worse of it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict

from slurm_power.errors import Unavailable
from slurm_power.ess.incumbent import IncumbentPeak, incumbent_after
from slurm_power.ess.tariff import Tariff
from slurm_power.monitoring.metering import MeteringInterval
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.journal import Journal

log = logging.getLogger(__name__)


class BillingState:
    def __init__(self, *, journal: Journal, tariff: Tariff, max_gap_s: float, wall_s: float) -> None:
        self._journal, self._tariff, self._max_gap_s = journal, tariff, max_gap_s
        self._lock = threading.Lock()
        self._interval = MeteringInterval.starting(
            length_s=tariff.metering_interval_s, max_gap_s=max_gap_s, wall_s=wall_s
        )
        self._peak: IncumbentPeak | None = None
        self._load(wall_s)

    def observe(self, grid: GridReading | None, *, wall_s: float) -> None:
        """Account for one meter reading (None: the meter was silent)."""
        with self._lock:
            watts = None if grid is None else grid.import_watts
            self._interval, closed = self._interval.observe(watts=watts, wall_s=wall_s)
            self._peak = incumbent_after(self._peak, closed, tariff=self._tariff, wall_s=wall_s)
        if closed:
            self.save()

    def interval(self, wall_s: float) -> MeteringInterval:
        with self._lock:
            return self._interval

    def peak_watts(self, wall_s: float) -> float:
        """The highest closed interval of the billing period that `wall_s` falls into; 0 before the first."""
        with self._lock:
            peak = incumbent_after(self._peak, (), tariff=self._tariff, wall_s=wall_s)
            return peak.peak_watts

    def save(self) -> None:
        with self._lock:
            records = [{"kind": "interval", **self._interval.to_record()}]
            if self._peak is not None:
                records.append({"kind": "peak", **asdict(self._peak)})
        try:
            self._journal.write(records)
        except Unavailable as failure:
            log.error("the billing period's peak is only in memory: %s", failure)

    def _load(self, wall_s: float) -> None:
        for record in self._journal.load():
            values = {key: value for key, value in record.items() if key != "kind"}
            if record.get("kind") == "interval" and values.get("length_s") == self._tariff.metering_interval_s:
                self._interval = MeteringInterval.from_record(values)
            elif record.get("kind") == "peak":
                self._peak = IncumbentPeak(**{key: float(value or 0.0) for key, value in values.items()})
