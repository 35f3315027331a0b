"""Says which jobs have processes here."""

from __future__ import annotations

from collections.abc import Mapping

from slurm_power.errors import Unavailable
from slurm_power.ports.job_presence import Evidence


class FakeJobPresence:
    def __init__(self) -> None:
        self.evidence: dict[int, Evidence] = {}
        self.readable = True

    def seen(self, owners: Mapping[int, int]) -> Mapping[int, Evidence]:
        if not self.readable:
            raise Unavailable("/proc cannot be read")
        return {job_id: kind for job_id, kind in self.evidence.items() if job_id in owners}
