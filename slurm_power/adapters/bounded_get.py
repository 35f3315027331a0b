"""One GET whose answer is never held beyond a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from slurm_power.errors import Unavailable

MOST_BYTES = 1024 * 1024


def refuse_all_but_ok(status: int) -> None:
    if status != httpx.codes.OK:
        raise Unavailable(f"HTTP {status}")


async def bounded_get(
    client: httpx.AsyncClient,
    url: str,
    *,
    headers: Mapping[str, str],
    check: Callable[[int], None] = refuse_all_but_ok,
) -> bytes:
    """`check` raises for a status that will not do. Raise Unavailable for more than MOST_BYTES, httpx's errors."""
    async with client.stream("GET", url, headers=dict(headers)) as answer:
        check(answer.status_code)
        content = bytearray()
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > MOST_BYTES:
                raise Unavailable(f"answers more than {MOST_BYTES} bytes")
        return bytes(content)
