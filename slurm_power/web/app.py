"""The controller's HTTP face: JSON, the dashboard, metrics, and the agents' door. It serves, it never decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from slurm_power.web.admin import Admin, admin_routes
from slurm_power.web.broadcast import Broadcast
from slurm_power.web.metrics import metrics_route
from slurm_power.web.page import page_routes
from slurm_power.web.pools import PoolsFace, pool_routes
from slurm_power.web.sealed import sealed_route
from slurm_power.web.security import SecurityHeaders
from slurm_power.web.stream import stream_route
from slurm_power.web.tokens import AdminTokens

MAX_REPORT_BYTES = 1024 * 1024
VIEWS = ("status", "plan", "jobs", "ess", "events")


class ControllerFace(Protocol):
    """What the web server needs of the controller."""

    def status(self) -> Any: ...
    def plan(self) -> Any: ...
    def jobs(self) -> Any: ...
    def ess(self) -> Any: ...
    def events(self) -> Any: ...
    def healthy(self) -> bool: ...
    def exchange(self, sealed: bytes) -> bytes: ...


def create_app(
    face: ControllerFace,
    *,
    broadcast: Broadcast | None = None,
    admin: Admin | None = None,
    tokens: AdminTokens | None = None,
    metrics: Callable[[], str] | None = None,
    pools: PoolsFace | None = None,
) -> Starlette:
    """`broadcast`: what the dashboard shows live; without it the page shows nothing. `admin` and `tokens`: who may
    change something, and where that goes. `metrics`: the text that Prometheus reads. `pools`: where pool managers
    report."""

    def answers(name: str) -> Route:
        async def endpoint(_: Request) -> Response:
            return JSONResponse(getattr(face, name)())

        return Route(f"/api/{name}", endpoint)

    async def health(_: Request) -> Response:
        healthy = face.healthy()
        return PlainTextResponse("ok" if healthy else "no tick", status_code=200 if healthy else 503)

    return Starlette(
        routes=[
            *(answers(name) for name in VIEWS),
            Route("/health", health),
            sealed_route("/agent/report", face.exchange, limit_bytes=MAX_REPORT_BYTES),
            *pool_routes(pools),
            *([] if metrics is None else [metrics_route(metrics)]),
            *([] if broadcast is None else [stream_route(broadcast)]),
            *admin_routes(admin, tokens),
            *page_routes(),
        ],
        middleware=[Middleware(SecurityHeaders)],
    )
