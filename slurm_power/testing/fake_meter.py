"""A grid meter that shows what it is told."""

from __future__ import annotations

from slurm_power.errors import Unavailable
from slurm_power.monitoring.readings import GridReading
from slurm_power.ports.clock import Clock


class FakeMeter:
    """`import_watts` None makes it unreachable; `export_watts` counts while nothing is imported."""

    def __init__(self, *, clock: Clock, import_watts: float | None = 0.0, export_watts: float = 0.0) -> None:
        self._clock = clock
        self.import_watts = import_watts
        self.export_watts = export_watts

    def read(self) -> GridReading:
        if self.import_watts is None:
            raise Unavailable("fake meter: does not answer")
        return GridReading(
            import_watts=self.import_watts,
            export_watts=0.0 if self.import_watts else self.export_watts,
            taken_at_s=self._clock.now_s(),
        )

    def close(self) -> None:
        pass
