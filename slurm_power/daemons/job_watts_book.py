"""Learns what jobs draw, keeps it over restarts, and writes the table that job_submit.lua reads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from slurm_power.errors import Unavailable
from slurm_power.ports.journal import Journal
from slurm_power.relocation.job_power import JobPower
from slurm_power.relocation.job_watts import JobWatts, from_records, table_text, to_records

log = logging.getLogger(__name__)


class JobWattsBook:
    """A table that cannot be written leaves the old one: job_submit.lua goes on with it."""

    def __init__(self, journal: Journal, *, write_table: Callable[[str], None] | None, gpu_max_watts: float) -> None:
        """`write_table` replaces the table (raises Unavailable); None: it is learned, but nobody reads it."""
        self._journal, self._write_table, self._gpu_max_watts = journal, write_table, gpu_max_watts
        self._watts = JobWatts()
        try:
            self._watts.runs.update(from_records(journal.load()))
        except (Unavailable, ValueError) as failure:
            log.warning("what jobs drew is learned anew: %s", failure)

    def observe(self, powers: Iterable[JobPower]) -> None:
        if not self._watts.observe(powers):
            return
        try:
            self._journal.write(to_records(self._watts.runs))
            if self._write_table is not None:
                self._write_table(table_text(self._watts.foreseen(gpu_max_watts=self._gpu_max_watts)))
        except Unavailable as failure:
            log.warning("%s", failure)
