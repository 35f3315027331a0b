"""The two endpoints that generate: a body in, a whole answer or a stream of events out.

A client that leaves cancels what runs for it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from job_wrappers.serving.errors import BadRequest, NotServing, RequestRefused
from job_wrappers.serving.server import answers
from job_wrappers.serving.server.answers import Head
from job_wrappers.serving.server.exchange import Desk, Exchange
from job_wrappers.serving.server.parse import parse

MAX_BODY_BYTES = 4 * 1024 * 1024
_SUBMIT_TRIES = 3

Result = TypeVar("Result")


class BodyTooLarge(BadRequest):
    status = 413


class ClientLeft(RequestRefused):
    """Nobody reads what is answered; the status is nginx's for it."""

    status = 499


async def complete(http: HttpRequest, desk: Desk, *, chat: bool) -> Response:
    """Raise RequestRefused kinds."""
    body = await read_json(http)
    arrived_at_s = desk.now_s()
    exchange = await unless_left(http.receive, _begin(http, desk, body, chat=chat, arrived_at_s=arrived_at_s))
    if exchange.parsed.stream:
        return EventStream(exchange)
    try:
        return json_response(await unless_left(http.receive, exchange.whole()))
    finally:
        exchange.close()


async def read_json(http: HttpRequest) -> object:
    """Never holds more than the limit, whatever Content-Length says. Nothing at all counts as {}."""
    raw = bytearray()
    try:
        async for part in http.stream():
            raw += part
            if len(raw) > MAX_BODY_BYTES:
                raise BodyTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
        return json.loads(raw) if raw else {}
    except ClientDisconnect as cause:
        raise ClientLeft("the client left") from cause
    except (ValueError, RecursionError) as cause:
        raise BadRequest(f"the body is not JSON: {cause}") from cause


def json_response(content: answers.Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(answers.encoded(content), status, headers, media_type="application/json")


async def unless_left(receive: Receive, work: Coroutine[None, None, Result]) -> Result:
    """What `work` returns or raises; if the client leaves before, it is cancelled and ClientLeft raised. The body must
    have been read."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft("the client left")
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _begin(http: HttpRequest, desk: Desk, body: object, *, chat: bool, arrived_at_s: float) -> Exchange:
    """The model may change between reading the prompt and handing it in: then it is read anew for the other one."""
    caller = http.client.host if http.client is not None else ""
    for _ in range(_SUBMIT_TRIES):
        model = desk.engine.active()
        # In a thread: the text may be long, and the others go on meanwhile.
        parsed = await asyncio.to_thread(parse, body, chat=chat, model=model, arrived_at_s=arrived_at_s, caller=caller)
        head = Head(
            answer_id=("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            created_unix_s=int(time.time()),
            model=model.name,
            chat=chat,
            token_text=None if model.text is None else model.text.token_text,
        )
        exchange = Exchange(desk, parsed, head)
        try:
            await exchange.submit()
            return exchange
        except NotServing as refusal:
            if refusal.retry_after_s != 0.0:
                raise
    raise NotServing("the model changes too often", retry_after_s=1.0)


class EventStream(StreamingResponse):
    def __init__(self, exchange: Exchange) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the latter for nginx in front
        super().__init__(exchange.events(), headers=headers, media_type="text/event-stream")
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientLeft):
                await unless_left(receive, self.stream_response(send))
        finally:
            self._exchange.close()
