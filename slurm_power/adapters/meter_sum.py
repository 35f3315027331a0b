"""Several meters read at once; as one meter where there is none above them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from slurm_power.errors import SlurmPowerError, Unavailable
from slurm_power.monitoring.meter_sum import sum_of
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.meter import Meter

MOST_PARTS = 64
"""Each has a thread of its own, so that one that is slow delays none, and all take as long as the slowest."""


class MeterGroup:
    """Reads every part; what fails is told beside what answers."""

    def __init__(self, parts: Mapping[str, Meter]) -> None:
        self._parts = dict(parts)
        self._threads = ThreadPoolExecutor(max_workers=len(self._parts), thread_name_prefix="meter")

    def read(self) -> tuple[dict[str, GridReading], dict[str, str]]:
        """Readings by name, and failures by name: together every part."""
        asked = {name: self._threads.submit(partial(_ask, meter.read)) for name, meter in self._parts.items()}
        answers = {name: one.result() for name, one in asked.items()}
        readings = {name: one for name, one in answers.items() if isinstance(one, GridReading)}
        return readings, {name: one for name, one in answers.items() if isinstance(one, str)}

    def close(self) -> None:
        self._threads.shutdown()
        for meter in self._parts.values():
            meter.close()


class SumMeter:
    def __init__(self, group: MeterGroup) -> None:
        self._group = group

    def read(self) -> GridReading:
        readings, failures = self._group.read()
        if failures:
            first, *others = sorted(failures)
            also = f" (also missing: {', '.join(others)})" if others else ""
            raise Unavailable(f"the sum of parts lacks {first}: {failures[first]}{also}")
        return sum_of(readings.values())

    def close(self) -> None:
        self._group.close()


def _ask(read: Callable[[], GridReading]) -> GridReading | str:
    try:
        return read()
    except SlurmPowerError as failure:
        return str(failure)
