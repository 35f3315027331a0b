"""Reads a request's body, but only so much of it."""

from __future__ import annotations

from starlette.requests import Request

BODY_TIMEOUT_S = 2.0
"""Anybody may connect: a body that trickles in must not hold a connection, nor the daemon's end."""


async def read_body(request: Request, *, limit: int) -> bytes | None:
    """None: it is longer than `limit` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)
