"""A made-up site behind the real app and a real uvicorn, on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from slurm_power.web.admin import Admin
from slurm_power.web.app import create_app
from slurm_power.web.broadcast import Broadcast, live_parts
from slurm_power.web.tokens import AdminTokens
from tests.web.made_up_site import MadeUpSite


@dataclass(frozen=True)
class Served:
    url: str
    site: MadeUpSite
    broadcast: Broadcast


@contextmanager
def served(
    site: MadeUpSite,
    *,
    broadcast: Broadcast | None = None,
    admin: Admin | None = None,
    tokens: AdminTokens | None = None,
    metrics: Callable[[], str] | None = None,
    port: int = 0,
) -> Iterator[Served]:
    shown = broadcast or Broadcast(live_parts(site.asks()), period_s=0.2)
    app = create_app(site, broadcast=shown, admin=admin, tokens=tokens, metrics=metrics)
    config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", site, shown)
    finally:
        shown.close()
        server.should_exit = True
        thread.join()
