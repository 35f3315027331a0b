"""The agent's line to the controller over HTTP."""

from __future__ import annotations

from collections.abc import Collection

import httpx

from slurm_power.adapters.sealed_http import SealedClient
from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.gpu.wire_json import lease_from_json, report_to_json
from slurm_power.ports.credentials import Credentials

REPORT_PATH = "/agent/report"
_MOST_ANSWER_BYTES = 1024 * 1024


class HttpAgentLink:
    def __init__(
        self,
        controller_url: str,
        *,
        credentials: Credentials,
        allowed_uids: Collection[int],
        timeout_s: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._client = SealedClient(
            controller_url,
            credentials=credentials,
            allowed_uids=allowed_uids,
            timeout_s=timeout_s,
            most_answer_bytes=_MOST_ANSWER_BYTES,
            transport=transport,
        )

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
