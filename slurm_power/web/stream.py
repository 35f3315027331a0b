"""Server-sent events: one HTTP answer that never ends, fed from the broadcast."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from slurm_power.errors import Unavailable
from slurm_power.web.broadcast import Broadcast, Client

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 15.0
"""A connection that takes nothing for so long is given up."""

KEEP_ALIVE_S = 15.0
RETRY_MS = 3000


def stream_route(broadcast: Broadcast) -> Route:
    async def events(_: Request) -> Response:
        try:
            client = await broadcast.join()
        except Unavailable as trouble:
            return PlainTextResponse(str(trouble), status_code=503, headers={"Retry-After": "30"})
        return EventStream(broadcast, client)

    return Route("/api/stream", events)


class EventStream(StreamingResponse):
    def __init__(self, broadcast: Broadcast, client: Client) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_frames(client), media_type="text/event-stream", headers=headers)
        self._broadcast, self._client = broadcast, client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.info("a watcher of the dashboard takes nothing any more: its connection is closed")
        finally:
            self._broadcast.leave(self._client)


async def _frames(client: Client) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                frame = await client.frames.get()
        except TimeoutError:
            yield b": nothing new\n\n"
            continue
        if frame is None:
            return
        yield frame
