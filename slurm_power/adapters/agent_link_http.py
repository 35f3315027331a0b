"""The agent's line to the controller over HTTP."""

from __future__ import annotations

from slurm_power.adapters.sealed_http import SealedClient
from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.gpu.wire_json import lease_from_json, report_to_json

REPORT_PATH = "/agent/report"


class HttpAgentLink:
    def __init__(self, client: SealedClient) -> None:
        self._client = client

    def exchange(self, report: AgentReport) -> NodeLease | None:
        try:
            lease = lease_from_json(self._client.post(REPORT_PATH, report_to_json(report)))
        except ConfigError as cause:
            raise Unavailable(f"{self._client.url}: report or lease unreadable: {cause}") from cause
        if lease is not None and lease.node_name != report.node_name:
            raise NotPermitted(f"{self._client.url}: the lease is for another node")
        return lease

    def close(self) -> None:
        self._client.close()
