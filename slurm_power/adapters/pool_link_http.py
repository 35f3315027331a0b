"""The pool manager's line to the controller over HTTP. Trust comes from the sealed bodies, never from the address."""

from __future__ import annotations

from collections.abc import Collection

import httpx

from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.llm.pool_wire import (
    Budget,
    Override,
    PoolReport,
    budgets_from_json,
    override_to_json,
    report_to_json,
)
from slurm_power.ports.credentials import Credentials

REPORT_PATH, OVERRIDE_PATH = "/pool/report", "/pool/budget"
_MOST_ANSWER_BYTES = 256 * 1024


class HttpPoolLink:
    def __init__(
        self,
        controller_url: str,
        *,
        credentials: Credentials,
        allowed_uids: Collection[int],
        timeout_s: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = controller_url.rstrip("/")
        self._credentials, self._allowed_uids = credentials, frozenset(allowed_uids)
        self._client = httpx.Client(timeout=timeout_s, trust_env=False, transport=transport)

    def exchange(self, report: PoolReport) -> dict[str, Budget]:
        """Raise Unavailable when the controller cannot be reached, NotPermitted when trust fails."""
        payload = self._post(REPORT_PATH, report_to_json(report))
        try:
            budgets = budgets_from_json(payload)
        except ConfigError as cause:
            raise Unavailable(f"{self._url}: unreadable budgets: {cause}") from cause
        ours = {pool.name for pool in report.pools}
        return {name: budget for name, budget in budgets.items() if name in ours}

    def override(self, wish: Override) -> None:
        """Raise ConfigError in the controller's words when it knows no such pool, else as `exchange`."""
        self._post(OVERRIDE_PATH, override_to_json(wish))

    def close(self) -> None:
        self._client.close()

    def _post(self, path: str, payload: bytes) -> bytes:
        url = self._url + path
        try:
            with self._client.stream("POST", url, content=self._credentials.seal(payload)) as answer:
                content = b""
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > _MOST_ANSWER_BYTES:
                        raise Unavailable(f"{url}: the answer is too long")
        except (httpx.HTTPError, httpx.InvalidURL) as cause:
            raise Unavailable(f"{url}: {cause}") from cause
        words = content[:500].decode("utf-8", "replace")
        if answer.status_code in (401, 403):
            raise NotPermitted(f"{url}: {words}")
        if answer.status_code == 400:
            raise ConfigError(words)
        if answer.status_code != 200:
            raise Unavailable(f"{url}: HTTP {answer.status_code}")
        opened = self._credentials.open(content)
        if opened.uid not in self._allowed_uids:
            raise NotPermitted(f"{url}: the answer comes from uid {opened.uid}, which is not trusted")
        return opened.payload
