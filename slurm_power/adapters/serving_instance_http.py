"""Steers one serving instance through its HTTP API, with the token that only its owner can read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from slurm_power.errors import ConfigError, DeviceRefused, NotPermitted, Unavailable
from slurm_power.llm.instance_status import InstanceStatus, parse_status

_STATUS_S, _STEER_S, _SWITCH_S = 5.0, 15.0, 600.0


class HttpServingInstance:
    def __init__(self, url: str, token_file: Path, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url, self._token_file = url, token_file
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, transport=transport)

    async def status(self) -> InstanceStatus:
        return await self._ask("status", None, timeout_s=_STATUS_S)

    async def set_clock_mhz(self, mhz: int | None) -> None:
        await self._ask("clock", {"sm_clock_mhz": mhz}, timeout_s=_STEER_S)

    async def set_limits(self, *, max_num_seqs: int | None = None, max_batched_tokens: int | None = None) -> None:
        wanted = {"max_num_seqs": max_num_seqs, "max_batched_tokens": max_batched_tokens}
        body = {key: value for key, value in wanted.items() if value is not None}
        await self._ask("limits", body, timeout_s=_STEER_S)

    async def switch_model(self, name: str) -> None:
        await self._ask("model", {"model": name}, timeout_s=_SWITCH_S)

    async def drain(self) -> None:
        await self._ask("drain", {}, timeout_s=_STEER_S)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, path: str, body: dict[str, Any] | None, *, timeout_s: float) -> InstanceStatus:
        method = "GET" if body is None else "POST"
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._client.request(
                    method, f"/admin/{path}", json=body, headers=self._headers(), timeout=timeout_s
                )
                content = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as cause:
            raise Unavailable(f"{self._url}: {cause or 'no answer in time'}") from cause
        except ValueError as cause:
            raise Unavailable(f"{self._url}: this is no slurm-power-serve: {cause}") from cause
        if answer.status_code == 200:
            try:
                return parse_status(content)
            except ConfigError as cause:
                raise Unavailable(f"{self._url}: {cause}") from cause
        words = f"{self._url}: HTTP {answer.status_code}: {_words(content)}"
        if answer.status_code in (401, 403):
            raise NotPermitted(words)
        raise DeviceRefused(words) if answer.status_code < 500 else Unavailable(words)

    def _headers(self) -> dict[str, str]:
        """Read each time: a server that was started again has a new one."""
        try:
            return {"Authorization": f"Bearer {self._token_file.read_text(encoding='ascii').strip()}"}
        except (OSError, UnicodeDecodeError) as cause:
            raise Unavailable(f"{self._token_file}: {getattr(cause, 'strerror', None) or cause}") from cause


def _words(content: object) -> str:
    error = content.get("error") if isinstance(content, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message)[:300] if message else "no reason given"
