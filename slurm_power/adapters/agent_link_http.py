"""The agent's line to the controller over HTTP. Trust comes from the sealed bodies, never from the address."""

from __future__ import annotations

from collections.abc import Collection

import httpx

from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.gpu.wire_json import lease_from_json, report_to_json
from slurm_power.ports.credentials import Credentials

REPORT_PATH = "/agent/report"
_MAX_ANSWER_BYTES = 1024 * 1024


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
        self._url = controller_url.rstrip("/") + REPORT_PATH
        self._credentials = credentials
        self._allowed_uids = frozenset(allowed_uids)
        # trust_env off: a proxy of the environment has no part between two daemons of one cluster.
        self._client = httpx.Client(timeout=timeout_s, trust_env=False, transport=transport)

    def exchange(self, report: AgentReport) -> NodeLease | None:
        answer = self._post(self._credentials.seal(report_to_json(report)))
        opened = self._credentials.open(answer)
        if opened.uid not in self._allowed_uids:
            raise NotPermitted(f"{self._url}: the answer comes from uid {opened.uid}, which is not trusted")
        try:
            lease = lease_from_json(opened.payload)
        except ConfigError as cause:
            raise Unavailable(f"{self._url}: unreadable lease: {cause}") from cause
        if lease is not None and lease.node_name != report.node_name:
            raise NotPermitted(f"{self._url}: the lease is for another node")
        return lease

    def close(self) -> None:
        self._client.close()

    def _post(self, body: bytes) -> bytes:
        try:
            with self._client.stream("POST", self._url, content=body) as answer:
                content = _read_at_most(answer, _MAX_ANSWER_BYTES)
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as cause:
            raise Unavailable(f"{self._url}: {cause}") from cause
        if status in (401, 403):
            raise NotPermitted(f"{self._url}: the controller does not trust this agent (HTTP {status})")
        if status != 200:
            raise Unavailable(f"{self._url}: HTTP {status}")
        return content


def _read_at_most(answer: httpx.Response, limit_bytes: int) -> bytes:
    content = b""
    for chunk in answer.iter_bytes():
        content += chunk
        if len(content) > limit_bytes:
            raise Unavailable("the controller's answer is too long")
    return content
