"""The controller's HTTP face: JSON for the CLI, and the agents' door. It serves, it never decides."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from slurm_power.errors import ConfigError, NotPermitted, Unavailable

MAX_REPORT_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 2.0
"""Anybody may connect: a report that trickles in must not hold a connection, nor the daemon's end."""


class ControllerFace(Protocol):
    """What the web server needs of the controller."""

    def status(self) -> Any: ...
    def plan(self) -> Any: ...
    def jobs(self) -> Any: ...
    def ess(self) -> Any: ...
    def events(self) -> Any: ...
    def healthy(self) -> bool: ...
    def exchange(self, sealed: bytes) -> bytes: ...


def create_app(face: ControllerFace) -> Starlette:
    async def agent_report(request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _body(request)
        except (ClientDisconnect, TimeoutError):
            return PlainTextResponse("the report broke off", status_code=408)
        if body is None:
            return PlainTextResponse(f"a report is at most {MAX_REPORT_BYTES} bytes", status_code=413)
        try:
            return Response(await run_in_threadpool(face.exchange, body))
        except NotPermitted as refusal:
            return PlainTextResponse(str(refusal), status_code=403)
        except ConfigError as nonsense:
            return PlainTextResponse(str(nonsense), status_code=400)
        except Unavailable as trouble:
            return PlainTextResponse(str(trouble), status_code=503)

    def answers(name: str) -> Route:
        async def endpoint(_: Request) -> Response:
            return JSONResponse(getattr(face, name)())

        return Route(f"/api/{name}", endpoint)

    async def health(_: Request) -> Response:
        healthy = face.healthy()
        return PlainTextResponse("ok" if healthy else "no tick", status_code=200 if healthy else 503)

    return Starlette(
        routes=[
            *(answers(name) for name in ("status", "plan", "jobs", "ess", "events")),
            Route("/health", health),
            Route("/agent/report", agent_report, methods=["POST"]),
        ]
    )


async def _body(request: Request) -> bytes | None:
    """None: too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REPORT_BYTES:
            return None
    return bytes(body)
