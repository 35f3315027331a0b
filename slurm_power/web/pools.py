"""The pool managers' door, and the admins' to their budgets. Trust is munge's: bodies and answers are sealed."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from slurm_power.web.sealed import sealed_route

MAX_REPORT_BYTES = 64 * 1024


class PoolsFace(Protocol):
    def exchange(self, sealed: bytes) -> bytes: ...
    def override(self, sealed: bytes) -> bytes: ...
    def view(self) -> Any: ...


def pool_routes(pools: PoolsFace | None) -> list[Route]:
    if pools is None:
        return []

    async def shown(_: Request) -> Response:
        return JSONResponse(pools.view())

    return [
        sealed_route("/pool/report", pools.exchange, limit_bytes=MAX_REPORT_BYTES),
        sealed_route("/pool/budget", pools.override, limit_bytes=MAX_REPORT_BYTES),
        Route("/api/pools", shown),
    ]
