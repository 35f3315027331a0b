"""What the utility asks of the site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from slurm_power.ess.grid_event import GridEvent


class GridSignal(Protocol):
    def events(self) -> Sequence[GridEvent]:
        """All that are known, over or not. Raise Unavailable when nobody answers or the answer cannot be read; what was
        asked before then goes on."""
        ...

    def close(self) -> None: ...
