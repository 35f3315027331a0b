"""The billing periods' account: the open metering interval, peaks already set, energy imported. Survives restarts.

It is written when an interval closes; after a `kill -9` the part of the open interval that was measured
is unknown, and the battery loop then assumes the worse of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from slurm_power.errors import Unavailable
from slurm_power.ess.demand_bounds import billed_watts_at
from slurm_power.ess.demand_ledger import DemandLedger
from slurm_power.ess.energy_account import EnergyAccount
from slurm_power.ess.rates import Rates
from slurm_power.monitoring.metering import MeteringInterval
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.journal import Journal

log = logging.getLogger(__name__)


class BillingState:
    def __init__(self, *, journal: Journal, rates: Rates, max_gap_s: float, wall_s: float) -> None:
        self._journal, self._rates, self._max_gap_s = journal, rates, max_gap_s
        self._lock = threading.Lock()
        self._interval = MeteringInterval.starting(
            length_s=rates.metering_interval_s, max_gap_s=max_gap_s, wall_s=wall_s
        )
        self._ledger, self._energy = DemandLedger(), EnergyAccount()
        self._load()

    def observe(self, grid: GridReading | None, *, wall_s: float) -> None:
        """Account for one meter reading (None: the meter was silent)."""
        with self._lock:
            watts = None if grid is None else grid.import_watts
            self._interval, closed = self._interval.observe(watts=watts, wall_s=wall_s)
            for interval in closed:
                self._energy = self._energy.with_interval(self._rates, interval)
                if interval.average_watts is not None:
                    self._ledger = self._ledger.with_interval(
                        self._rates, start_wall_s=interval.start_wall_s, watts=interval.average_watts
                    )
        if closed:
            self.save()

    def interval(self, wall_s: float) -> MeteringInterval:
        with self._lock:
            return self._interval

    @property
    def ledger(self) -> DemandLedger:
        """The peaks of closed intervals; the true ones may hide in intervals that nobody measured."""
        with self._lock:
            return self._ledger

    @property
    def energy(self) -> EnergyAccount:
        """Of closed intervals, as far as they were measured."""
        with self._lock:
            return self._energy

    def peak_watts(self, wall_s: float) -> float:
        """The highest closed interval of the billing period that `wall_s` falls into; 0 before the first."""
        return self.ledger.peak_watts(self._rates.period_of(wall_s))

    def free_watts(self, wall_s: float) -> float:
        """Import that raises no demand charge at this hour; infinite where none counts."""
        return billed_watts_at(self._rates, self.ledger, wall_s)

    def save(self) -> None:
        with self._lock:
            records: list[Mapping[str, str | int | float | bool | None]] = [
                {"kind": "interval", **self._interval.to_record()}
            ]
            records += [{"kind": "demand", **record} for record in self._ledger.to_records()]
            records += [{"kind": "energy", **record} for record in self._energy.to_records()]
        try:
            self._journal.write(records)
        except Unavailable as failure:
            log.error("the peaks of the billing period are only in memory: %s", failure)

    def _load(self) -> None:
        peaks, energy = [], []
        for record in self._journal.load():
            values = {key: value for key, value in record.items() if key != "kind"}
            if record.get("kind") == "interval" and values.get("length_s") == self._rates.metering_interval_s:
                self._interval = MeteringInterval.from_record(values)
            elif record.get("kind") == "demand":
                peaks.append(values)
            elif record.get("kind") == "energy":
                energy.append(values)
        try:
            self._ledger = DemandLedger.from_records(peaks)
        except ValueError as cause:
            log.error("the peaks set before are lost, the journal does not hold them: %s", cause)
        try:
            self._energy = EnergyAccount.from_records(energy)
        except ValueError as cause:
            log.error("the energy counted before is lost, the journal does not hold it: %s", cause)
