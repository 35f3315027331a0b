"""The router's HTTP face: OpenAI's endpoints, passed through to the instance that the desk chooses.

The two endpoints that generate are plain ASGI, for each layer between costs every request time; the rest is Starlette.
A request whose instance fails before its first byte is sent to another one, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from slurm_power.daemons.pool_roster import PoolInstance
from slurm_power.daemons.router_desk import Desk
from slurm_power.daemons.router_ticket import Asked, NoPlace, Ticket
from slurm_power.errors import Unavailable
from slurm_power.ports.api_keys import Callers
from slurm_power.ports.instance_stream import InstanceAnswer, InstanceStreams
from slurm_power.web.router_answer import AnswerWatch
from slurm_power.web.router_body import BadBody, Body, TokensPerCharacter, read_body
from slurm_power.web.router_errors import Refused, error_event, refuse
from slurm_power.web.router_metrics import render

GENERATES = {"/v1/completions": False, "/v1/chat/completions": True}
"""Path -> whether it is a chat."""

_PASSED_BACK = (b"content-type", b"content-length", b"cache-control", b"x-accel-buffering", b"retry-after")
_TRY_ELSEWHERE = (429, 502, 503)
_BODY_S = 30.0
_UNWATCHED_S = 0.1
_FORGET_S, _FORGET_FACTOR = 2.0, 16
_LONG_BODY_BYTES = 64 * 1024
"""Parsed on a thread: others wait meanwhile for no longer than for a short one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterParts:
    desk: Desk
    streams: InstanceStreams
    callers: Callers | None  # None: anybody may ask
    models: Callable[[], Mapping[str, bool]]  # names that clients may ask for -> whether it serves now
    pools: Callable[[], Any]  # for /router/status
    max_body_bytes: int


class _ClientLeft(Exception):
    """Before its request was whole: nobody waits for an answer."""


class RouterApp:
    def __init__(self, parts: RouterParts) -> None:
        self._parts, self._desk = parts, parts.desk
        self._sizes = TokensPerCharacter()
        self._started_unix_s = int(time.time())
        self._others = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/router/status", self._status),
            ],
            exception_handlers={404: _no_such, 405: _no_such},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        chat = GENERATES.get(scope["path"])
        if chat is None or scope["method"] != "POST":
            await self._others(scope, receive, send)
            return
        arrived_at_s = self._desk.now_s()
        try:
            caller = self._caller(scope)
            raw = await self._read(scope, receive)
            body = await _parsed(raw, chat=chat)
            if body.model and body.model not in (known := self._parts.models()):
                raise Refused(404, f"the model {body.model!r} is not served here: {', '.join(known)}", "model")
            asked = Asked(
                model=body.model,
                caller=f"{caller}/{body.caller}",
                prompt_tokens=self._sizes.tokens(body),
                max_tokens=body.max_tokens,
                arrived_at_s=arrived_at_s,
            )
            await _unless_left(receive, self._serve(scope["path"], raw, body, asked, send))
        except _ClientLeft:
            return
        except BadBody as refusal:
            await refuse(send, Refused(400, str(refusal)))
        except Refused as refusal:
            await refuse(send, refusal)
        except NoPlace as refusal:
            await refuse(send, Refused(refusal.status, str(refusal), retry_after_s=refusal.retry_after_s))

    async def _serve(self, path: str, raw: bytes, body: Body, asked: Asked, send: Send) -> None:
        failed: PoolInstance | None = None
        for last in (False, True):
            ticket = await self._desk.place(asked, without=failed)
            answer: InstanceAnswer | None = None
            try:
                answer = await self._parts.streams.send(ticket.instance.url, path, raw)
                part = await answer.part()
                if answer.status in _TRY_ELSEWHERE and not last:
                    raise Unavailable(f"{ticket.instance.name}: HTTP {answer.status}")
            except Unavailable as trouble:
                if answer is not None:
                    answer.close()
                ticket.done()
                failed = ticket.instance
                if last:
                    self._desk.figures.broken += 1
                    raise Refused(502, f"two instances did not answer: {trouble}", retry_after_s=1.0) from trouble
                self._desk.figures.retried += 1
                continue
            except BaseException:  # the client left: nobody listens any more
                if answer is not None:
                    answer.close()
                ticket.done()
                raise
            await self._pass_back(ticket, answer, part, body, send)
            return

    async def _pass_back(
        self, ticket: Ticket, answer: InstanceAnswer, part: bytes | None, body: Body, send: Send
    ) -> None:
        watch = AnswerWatch(stream=body.stream)
        good = answer.status == 200
        try:
            if good:
                ticket.began()
            headers = [(name, answer.headers[name]) for name in _PASSED_BACK if name in answer.headers]
            headers.append((b"x-slurm-power-instance", ticket.instance.name.encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            while part is not None:
                watch.see(part)
                await send({"type": "http.response.body", "body": part, "more_body": True})
                part = await answer.part()
            await send({"type": "http.response.body", "body": b""})
            if good:
                self._learn(ticket, watch, body)
        except Unavailable:  # too late for another one: part of the answer is out
            self._desk.figures.broken += 1
            if body.stream:
                await send({"type": "http.response.body", "body": error_event("the instance broke off")})
        finally:
            answer.close()
            ticket.done()

    def _learn(self, ticket: Ticket, watch: AnswerWatch, body: Body) -> None:
        counted = watch.counted()
        ticket.done(output_tokens=counted.output_tokens, cut_off=counted.cut_off)
        if counted.prompt_tokens is not None:
            self._sizes.learn(body, counted.prompt_tokens)

    def _caller(self, scope: Scope) -> str:
        if self._parts.callers is None:
            return ""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        caller = self._parts.callers.caller(given)
        if caller is None:
            raise Refused(401, "give a key: Authorization: Bearer KEY")
        return caller

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Never holds more than the limit, whatever Content-Length says."""
        most = self._parts.max_body_bytes
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if told.isdigit() and int(told[:20]) > most:
            raise Refused(413, f"the body is larger than {most} bytes")
        try:
            async with asyncio.timeout(_BODY_S):
                message = await _more(receive)
                if not message["more_body"] and len(message["body"]) <= most:  # nearly always
                    whole: bytes = message["body"]
                    return whole
                body = bytearray(message["body"])
                while message["more_body"] and len(body) <= most:
                    message = await _more(receive)
                    body += message["body"]
        except TimeoutError as cause:
            raise Refused(408, "the body took too long") from cause
        if len(body) > most:
            await _forget_rest(message, receive, most)
            raise Refused(413, f"the body is larger than {most} bytes")
        return bytes(body)

    # --- the rest

    def _known(self, http: Request) -> JSONResponse | None:
        """A refusal for strangers."""
        try:
            self._caller(http.scope)
        except Refused as refusal:
            return JSONResponse(refusal.as_json(), refusal.status)
        return None

    async def _models(self, http: Request) -> Response:
        return self._known(http) or JSONResponse({"object": "list", "data": list(self._shown().values())})

    async def _model(self, http: Request) -> Response:
        stranger = self._known(http)
        if stranger is not None:
            return stranger
        name, shown = http.path_params["name"], self._shown()
        if name not in shown:
            refusal = Refused(404, f"the model {name[:200]!r} is not served here: {', '.join(shown)}", "model")
            return JSONResponse(refusal.as_json(), 404)
        return JSONResponse(shown[name])

    def _shown(self) -> dict[str, dict[str, Any]]:
        common = {"object": "model", "created": self._started_unix_s, "owned_by": "slurm-power"}
        return {
            name: {"id": name, **common, "state": "active" if serves else "absent"}
            for name, serves in self._parts.models().items()
        }

    async def _health(self, _: Request) -> Response:
        serving = self._desk.roster.serving()
        status = 200 if serving else 503
        return JSONResponse({"status": "ok" if serving else "no instance serves", "instances": serving}, status)

    async def _metrics(self, _: Request) -> Response:
        return PlainTextResponse(render(self._desk), media_type="text/plain; version=0.0.4")

    async def _status(self, http: Request) -> Response:
        return self._known(http) or JSONResponse(
            {"waiting": self._desk.waiting, **self._desk.figures.as_json(), "pools": self._parts.pools()}
        )


async def _more(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _ClientLeft
    return message


async def _forget_rest(message: Message, receive: Receive, most_bytes: int) -> None:
    """A client that is hung up on while it still writes never reads why: a little more is taken, and thrown away."""
    forgotten = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FORGET_S):
            while message.get("more_body") and forgotten < _FORGET_FACTOR * most_bytes:
                message = await receive()
                forgotten += len(message.get("body", b""))


async def _parsed(raw: bytes, *, chat: bool) -> Body:
    if len(raw) > _LONG_BODY_BYTES:
        return await asyncio.to_thread(read_body, raw, chat=chat)
    return read_body(raw, chat=chat)


async def _unless_left(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work`; a client that leaves cancels it. The body must have been read. At first nobody is watched: a
    watcher is one more task for each request, and most first tokens are there before it would tell anything."""
    task = asyncio.current_task()
    assert task is not None, "the server runs each request in a task"
    gone, left = False, None

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def begin() -> None:
        nonlocal left
        left = asyncio.ensure_future(watch())

    timer = asyncio.get_running_loop().call_later(_UNWATCHED_S, begin)
    try:
        await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
    finally:
        timer.cancel()
        if left is not None:
            left.cancel()


async def _no_such(http: Request, cause: Exception) -> Response:
    status = getattr(cause, "status_code", 404)
    refusal = Refused(status, f"{http.method} {http.url.path[:200]}: {getattr(cause, 'detail', 'no such path')}")
    return JSONResponse(refusal.as_json(), status)
