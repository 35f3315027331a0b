"""Reads the meters below the feeder and holds their sum against it. It only tells; nothing is controlled by it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from slurm_power.monitoring.conservation import BothSides, Conservation, ConservationRules, ConservationWindow
from slurm_power.monitoring.meter_sum import sum_of
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.clock import Clock
from slurm_power.ports.meter import PartMeters

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartsView:
    """The last look; replaced as a whole. `conservation` None: there are no parts, or none was read yet."""

    parts: Mapping[str, GridReading] = field(default_factory=dict)
    conservation: Conservation | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NO_PARTS = PartsView()


class PartsWatch:
    def __init__(self, meters: PartMeters, *, clock: Clock, rules: ConservationRules, max_gap_s: float) -> None:
        self._meters, self._clock = meters, clock
        self._window = ConservationWindow(rules, max_gap_s=max_gap_s)
        self._view = NO_PARTS
        self._lock = threading.Lock()

    def view(self) -> PartsView:
        with self._lock:
            return self._view

    def step(self, feeder_watts: float | None) -> None:
        """`feeder_watts`: what the site draws behind feeder and battery, as the parts should see it."""
        readings, missing = self._meters.read()
        parts_watts = None
        if not missing:
            total = sum_of(readings.values())
            parts_watts = total.import_watts - total.export_watts
        self._window.add(BothSides(self._clock.now_s(), feeder_watts, parts_watts))
        found = self._window.check()
        failures = {f"part {name}": why for name, why in sorted(missing.items())}
        if found.good is False:
            failures["conservation"] = found.verdict
        notes = () if found.good is False else (f"conservation: {found.verdict}",)
        view = PartsView(readings, found, failures, notes)
        _log_changes(self._view, view)
        with self._lock:
            self._view = view


def _log_changes(before: PartsView, now: PartsView) -> None:
    """One line when a trouble begins, one when it ends."""
    for name in now.failures.keys() - before.failures.keys():
        log.warning("%s: %s", name, now.failures[name])
    for name in before.failures.keys() - now.failures.keys():
        log.warning("%s: good again", name)
