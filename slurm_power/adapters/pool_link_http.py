"""The pool manager's line to the controller over HTTP."""

from __future__ import annotations

from slurm_power.adapters.sealed_http import SealedClient
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.llm.pool_wire import (
    Budget,
    Override,
    PoolReport,
    budgets_from_json,
    override_to_json,
    report_to_json,
)

REPORT_PATH, OVERRIDE_PATH = "/pool/report", "/pool/budget"


class HttpPoolLink:
    def __init__(self, client: SealedClient) -> None:
        self._client = client

    def exchange(self, report: PoolReport) -> dict[str, Budget]:
        """Raise Unavailable when the controller cannot be reached, NotPermitted when trust fails."""
        try:
            budgets = budgets_from_json(self._client.post(REPORT_PATH, report_to_json(report)))
        except ConfigError as cause:
            raise Unavailable(f"{self._client.url}: report or budgets unreadable: {cause}") from cause
        ours = {pool.name for pool in report.pools}
        return {name: budget for name, budget in budgets.items() if name in ours}

    def override(self, wish: Override) -> None:
        """Raise ConfigError in the controller's words when it knows no such pool, else as `exchange`."""
        self._client.post(OVERRIDE_PATH, override_to_json(wish))

    def close(self) -> None:
        self._client.close()
