"""Two processes of `bench.router_leak`: the router, whose status also shows the sizes of all that it keeps, and the
instances that it sends to. `python -m bench.router_leak_site router|instances`."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

from slurm_power.adapters.api_keys_file import ApiKeys
from slurm_power.adapters.serving_stream_http import HttpInstanceStreams
from slurm_power.daemons.pool_roster import PoolInstance, Roster
from slurm_power.daemons.router_desk import Desk
from slurm_power.llm.output_length import OutputLengths
from slurm_power.llm.request_class import DEFAULT_SLO, class_named
from slurm_power.testing.stub_instance import StubBehaviour, StubInstance
from slurm_power.web.router import RouterApp, RouterParts
from slurm_power.web.router_server import RouterServer, bind, new_event_loop, settle_memory

KEY = "bench-key-0123456789"
MOST_BODY_BYTES = 256 * 1024
MAX_WAITING, PATIENCE_S = 32, 1.0
LOOK_S = 0.1

INSTANCES = {
    "SS": (StubBehaviour(), 128),
    "MS": (StubBehaviour(break_after_tokens=2, between_tokens_s=0.01), 128),
    "LL": (StubBehaviour(first_token_s=0.2, between_tokens_s=0.01), 16),
}
"""Pool -> what its one instance does, and its seats: quick; breaks off in mid-answer; slow, and soon full."""


async def route(port: int, stub_ports: list[int], keys: Path) -> None:
    desk = Desk(
        _roster(stub_ports), slo=DEFAULT_SLO, lengths=OutputLengths(), now_s=time.monotonic, max_waiting=MAX_WAITING,
        patience_s=PATIENCE_S, on_hurry=lambda pools: None,
    )  # fmt: skip
    streams = HttpInstanceStreams()
    parts = RouterParts(
        desk=desk, streams=streams, callers=ApiKeys(keys), models=lambda: {"chat": True},
        pools=lambda: sizes(desk, streams, server), max_body_bytes=MOST_BODY_BYTES,
    )  # fmt: skip
    server = RouterServer(RouterApp(parts))
    looking = asyncio.ensure_future(_look(desk))
    settle_memory()
    await server.serve(sockets=[bind("127.0.0.1", port)])
    looking.cancel()


def sizes(desk: Desk, streams: HttpInstanceStreams, server: RouterServer) -> dict[str, int]:
    instances = list(desk.roster)
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "client_connections": len(server.server_state.connections),
        "instance_connections_busy": len(streams._busy),
        "instance_connections_kept": streams.kept(),
        "waiting": len(desk._places) + len(desk._waiting),
        "tickets": sum(one.requests for one in instances),
        "tickets_unbegun": sum(len(one.unbegun) for one in instances),
        "tokens_held": sum(one.held_tokens + one.prefill_tokens for one in instances),
        "callers_remembered": len(desk.lengths),
    }


def _roster(stub_ports: list[int]) -> Roster:
    roster = Roster()
    for number, (name, port) in enumerate(zip(INSTANCES, stub_ports, strict=True), 1):
        one = PoolInstance(
            number, class_named(name), gpus=1, seats=INSTANCES[name][1], prefill_tokens_per_s=1e7, since_s=0.0
        )
        one.url, one.alive, one.capacity_tokens = f"http://127.0.0.1:{port}", True, 10**7
        roster.add(one)
    return roster


async def _look(desk: Desk) -> None:
    """What the pool manager does a few times a second."""
    while True:
        await asyncio.sleep(LOOK_S)
        desk.look_at_emergencies()
        for one in desk.roster:
            if not one.alive:
                one.alive = True
                desk.roster.regroup()
                desk.offer_places()


async def serve_instances(ports: list[int]) -> None:
    stubs = [StubInstance(behaviour) for behaviour, _ in INSTANCES.values()]
    for stub, port in zip(stubs, ports, strict=True):
        await stub.start(port)
    await asyncio.Event().wait()


def main(arguments: list[str]) -> None:
    which, *more = arguments
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        work: Any
        if which == "router":
            port, keys, *stub_ports = more
            work = route(int(port), [int(one) for one in stub_ports], Path(keys))
        else:
            work = serve_instances([int(one) for one in more])
        runner.run(work)


if __name__ == "__main__":
    main(sys.argv[1:])
