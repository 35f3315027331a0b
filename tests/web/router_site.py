"""A router on a free port before stub instances, for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from slurm_power.adapters.serving_stream_http import HttpInstanceStreams
from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.router_desk import Desk
from slurm_power.llm.output_length import OutputLengths
from slurm_power.llm.request_class import DEFAULT_SLO, RequestClass, Slo
from slurm_power.llm.routing import LARGEST
from slurm_power.ports.api_keys import Callers
from slurm_power.testing.stub_instance import StubInstance
from slurm_power.web.router import RouterApp, RouterParts
from slurm_power.web.router_server import RouterServer, bind


@dataclass
class RouterSite:
    desk: Desk
    streams: HttpInstanceStreams
    url: str
    hurried: list[frozenset[RequestClass]]
    number: int = 0

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=30.0, limits=limits)

    def add(self, stub: StubInstance, *, pool: RequestClass = LARGEST, seats: int = 128) -> PoolInstance:
        self.number += 1
        made = PoolInstance(self.number, pool, gpus=1, seats=seats, prefill_tokens_per_s=1e6, since_s=0.0)
        made.url, made.alive = stub.url, True
        self.desk.roster.add(made)
        self.desk.offer_places()
        return made


@asynccontextmanager
async def router_site(
    *,
    callers: Callers | None = None,
    max_body_bytes: int = 100_000,
    max_waiting: int = 64,
    patience_s: float = 10.0,
    slo: Slo = DEFAULT_SLO,
) -> AsyncIterator[RouterSite]:
    hurried: list[frozenset[RequestClass]] = []
    desk = Desk(
        Roster(),
        slo=slo,
        lengths=OutputLengths(),
        now_s=time.monotonic,
        max_waiting=max_waiting,
        patience_s=patience_s,
        on_hurry=hurried.append,
    )
    streams = HttpInstanceStreams(silence_s=5.0)
    parts = RouterParts(
        desk=desk,
        streams=streams,
        callers=callers,
        models=lambda: {"chat": True, "large": True},
        pools=dict,
        max_body_bytes=max_body_bytes,
    )
    door = bind("127.0.0.1", 0)
    server = RouterServer(RouterApp(parts))
    running = asyncio.ensure_future(server.serve(sockets=[door]))
    while not server.started:
        await asyncio.sleep(0.01)

    async def emergencies() -> None:
        while True:
            await asyncio.sleep(0.05)
            desk.look_at_emergencies()

    looking = asyncio.ensure_future(emergencies())
    try:
        yield RouterSite(desk, streams, f"http://127.0.0.1:{door.getsockname()[1]}", hurried)
    finally:
        looking.cancel()
        desk.refuse_all("the end")
        server.should_exit = server.force_exit = True
        await running
        streams.close()
