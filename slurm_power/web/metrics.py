"""/metrics: what Prometheus reads, in OpenMetrics' text form."""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from slurm_power.monitoring.openmetrics import CONTENT_TYPE


def metrics_route(render: Callable[[], str]) -> Route:
    async def endpoint(_: Request) -> Response:
        return Response(await run_in_threadpool(render), headers={"Content-Type": CONTENT_TYPE})

    return Route("/metrics", endpoint)
