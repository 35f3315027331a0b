"""The pool manager's line to the controller: it reports what its pools draw, and gets what they may draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from slurm_power.llm.pool_wire import Budget, PoolReport


class PoolLink(Protocol):
    def exchange(self, report: PoolReport) -> Mapping[str, Budget]:
        """Raise Unavailable when the controller cannot be reached, NotPermitted when trust fails."""
        ...
