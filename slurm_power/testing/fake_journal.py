"""A journal in memory whose disk can fill up."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_power.errors import Unavailable
from slurm_power.ports.journal import Record


class FakeJournal:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.disk_full = False
        self.writes = 0

    def load(self) -> list[Record]:
        return list(self.records)

    def write(self, records: Sequence[Record]) -> None:
        if self.disk_full:
            raise Unavailable("journal: no space left on device")
        self.writes += 1
        self.records = [dict(record) for record in records]
