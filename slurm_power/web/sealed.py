"""A door for daemons of the cluster: sealed bytes in, sealed bytes out. Trust is the face's business."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from slurm_power.errors import ConfigError, NotPermitted, Unavailable
from slurm_power.web.body import BODY_TIMEOUT_S, read_body


def sealed_route(path: str, answer: Callable[[bytes], bytes], *, limit_bytes: int) -> Route:
    """A POST whose body goes to `answer`; what that raises becomes a status and one line."""

    async def endpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await read_body(request, limit=limit_bytes)
        except (ClientDisconnect, TimeoutError):
            return PlainTextResponse("the report broke off", status_code=408)
        if body is None:
            return PlainTextResponse(f"a report is at most {limit_bytes} bytes", status_code=413)
        try:
            return Response(await run_in_threadpool(answer, body))
        except NotPermitted as refusal:
            return PlainTextResponse(str(refusal), status_code=403)
        except ConfigError as nonsense:
            return PlainTextResponse(str(nonsense), status_code=400)
        except Unavailable as trouble:
            return PlainTextResponse(str(trouble), status_code=503)

    return Route(path, endpoint, methods=["POST"])
