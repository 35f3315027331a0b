"""The few things that can be changed over HTTP. Each needs an admin's token and must come from our own page or command.

A token travels in a header that no browser sends by itself, so another site's page cannot act in an admin's name; the
own header and the Origin are checked all the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from slurm_power.daemons.overrides import Overrides
from slurm_power.errors import ConfigError, NotPermitted, SlurmPowerError, Unavailable
from slurm_power.web.body import BODY_TIMEOUT_S, read_body
from slurm_power.web.tokens import OWN_HEADER, AdminTokens

log = logging.getLogger(__name__)

MAX_WISH_BYTES = 4096
ACTIONS = ("observe", "hold", "target")
_STATUS = {NotPermitted: 403, ConfigError: 400, Unavailable: 503}


class Admin(Protocol):
    def observe(self, wish: Mapping[str, Any], *, who: str) -> Overrides: ...
    def hold(self, wish: Mapping[str, Any], *, who: str) -> Overrides: ...
    def target(self, wish: Mapping[str, Any], *, who: str) -> Overrides: ...


def admin_routes(admin: Admin | None, tokens: AdminTokens | None) -> list[Route]:
    def route(action: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                who = _admitted(request, tokens)
                wish = await _wish(request)
                if admin is None:
                    raise NotPermitted("nothing can be changed here")
                overrides = await run_in_threadpool(getattr(admin, action), wish, who=who)
            except SlurmPowerError as refusal:
                log.warning("admin request %s refused: %s", action, refusal)
                return PlainTextResponse(str(refusal), status_code=_STATUS.get(type(refusal), 500))
            return JSONResponse(asdict(overrides))

        return Route(f"/api/admin/{action}", endpoint, methods=["POST"])

    return [route(action) for action in ACTIONS]


def _admitted(request: Request, tokens: AdminTokens | None) -> str:
    """The admin's name."""
    if tokens is None:
        raise NotPermitted("the config names no [controller] admin_token_file: nothing can be changed here")
    if OWN_HEADER not in request.headers:
        raise NotPermitted(f"the header {OWN_HEADER} is missing")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise NotPermitted("this comes from a page of another origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise NotPermitted("this comes from a page of another site")
    return tokens.name_of(request.headers.get("authorization"))


async def _wish(request: Request) -> Mapping[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ConfigError("Content-Type: must be application/json")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await read_body(request, limit=MAX_WISH_BYTES)
    except (ClientDisconnect, TimeoutError) as cause:
        raise ConfigError("the request: broke off") from cause
    if body is None:
        raise ConfigError(f"the request: must be at most {MAX_WISH_BYTES} bytes")
    try:
        wish = json.loads(body)
    except ValueError as cause:
        raise ConfigError("the request: must be JSON") from cause
    if not isinstance(wish, dict):
        raise ConfigError("the request: must be a JSON object")
    return wish
