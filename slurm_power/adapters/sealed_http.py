"""One daemon's POST to another: sealed bytes out, sealed bytes back. Trust comes from seals, never from the address."""

from __future__ import annotations

from collections.abc import Collection

import httpx

from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.ports.credentials import Credentials

_MOST_WORDS = 500


class SealedClient:
    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials,
        allowed_uids: Collection[int],
        timeout_s: float = 5.0,
        most_answer_bytes: int = 1024 * 1024,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._credentials, self._allowed_uids = credentials, frozenset(allowed_uids)
        self._most_answer_bytes = most_answer_bytes
        # trust_env off: a proxy of the environment has no part between two daemons of one cluster.
        self._client = httpx.Client(timeout=timeout_s, trust_env=False, transport=transport)

    def post(self, path: str, payload: bytes) -> bytes:
        """What the other side answers, opened.

        Raise Unavailable when it cannot be reached, ConfigError in its words when it calls the payload nonsense,
        NotPermitted when either side does not trust the other.
        """
        url = self.url + path
        status, content = self._exchange(url, self._credentials.seal(payload))
        if status == 200:
            return self._opened(url, content)
        words = content[:_MOST_WORDS].decode("utf-8", "replace")
        if status in (401, 403):
            raise NotPermitted(f"{url}: HTTP {status}: {words}")
        if status == 400:
            raise ConfigError(words)
        raise Unavailable(f"{url}: HTTP {status}")

    def close(self) -> None:
        self._client.close()

    def _exchange(self, url: str, body: bytes) -> tuple[int, bytes]:
        try:
            with self._client.stream("POST", url, content=body) as answer:
                content = b""
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > self._most_answer_bytes:
                        raise Unavailable(f"{url}: the answer is longer than {self._most_answer_bytes} bytes")
                return answer.status_code, content
        except (httpx.HTTPError, httpx.InvalidURL) as cause:
            raise Unavailable(f"{url}: {cause}") from cause

    def _opened(self, url: str, content: bytes) -> bytes:
        opened = self._credentials.open(content)
        if opened.uid not in self._allowed_uids:
            raise NotPermitted(f"{url}: the answer comes from uid {opened.uid}, which is not trusted")
        return opened.payload
