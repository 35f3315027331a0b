"""Whether the router keeps anything of an hour of requests: its process under real HTTP, as fast as it goes, and after
each batch its memory, open files, tasks and tables. `python -m bench.router_leak [--requests N]`."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from bench.llm_router import running
from bench.router_leak_load import Load
from bench.router_leak_site import INSTANCES, KEY
from slurm_power.testing.cluster.ports import free_ports
from slurm_power.web.router_server import new_event_loop

OUTPUT = Path("build/bench/router_leak.json")
AN_HOUR = 36_000
"""At ten a second."""

BATCHES = 24
QUIET_S = 15.0
SETTLED = 0.25
"""Of the requests: until then tables that are bounded fill, and the allocator finds its size."""

BACK = (
    "files_beside_kept", "tasks", "client_connections", "instance_connections_busy", "waiting", "tickets",
    "tickets_unbegun", "tokens_held",
)  # fmt: skip
"""What must be as it was before the first request."""

Reading = dict[str, float]


def measure(requests: int, console: Console) -> dict[str, Any]:
    ports = [free_ports(1)[0] for _ in range(1 + len(INSTANCES))]
    router, *stubs = map(str, ports)
    with ExitStack() as stack:
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-leak-"))) / "keys"
        keys.touch(mode=0o600)
        keys.write_text(f"bench:{KEY}\n")
        stack.enter_context(running(["bench.router_leak_site", "instances", *stubs]))
        process = stack.enter_context(running(["bench.router_leak_site", "router", router, str(keys), *stubs]))
        load = Load(ports[0])
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            start = runner.run(_ready(ports[0], process.pid))
            readings = [start]
            began_s = time.monotonic()
            for number in range(1, BATCHES + 1):
                size = requests * number // BATCHES - requests * (number - 1) // BATCHES
                runner.run(load.batch(size))
                reading = runner.run(_quiet(ports[0], process.pid, start))
                reading["requests"] = requests * number // BATCHES
                readings.append(reading)
                console.print(json.dumps(reading))
        wall_s = time.monotonic() - began_s
    return {
        "requests": requests, "wall_s": wall_s, "seen": dict(sorted(load.seen.items())), **verdict(readings),
        "readings": readings,
    }  # fmt: skip


def verdict(readings: Sequence[Reading]) -> dict[str, Any]:
    start, end = readings[0], readings[-1]
    settled = [one for one in readings if one["requests"] >= SETTLED * end["requests"]]
    slope = statistics.linear_regression(
        [one["requests"] / 10_000 for one in settled], [one["rss_mb"] for one in settled]
    ).slope
    return {
        "rss_mb_start": start["rss_mb"],
        "rss_mb_after_a_quarter": settled[0]["rss_mb"],
        "rss_mb_end": end["rss_mb"],
        "rss_mb_per_10000_requests": slope,
        "not_back": {name: [start[name], end[name]] for name in BACK if start[name] != end[name]},
    }


async def _ready(port: int, pid: int) -> Reading:
    until_s = time.monotonic() + 60.0
    while time.monotonic() < until_s:
        try:
            return {"requests": 0, **await _read(port, pid)}
        except httpx.TransportError:
            await asyncio.sleep(0.2)
    raise RuntimeError("the router does not answer")


async def _quiet(port: int, pid: int, start: Reading) -> Reading:
    """As soon as all is as it was, or when it has had its time."""
    until_s = time.monotonic() + QUIET_S
    while True:
        reading = await _read(port, pid)
        if time.monotonic() > until_s or all(reading[name] == start[name] for name in BACK):
            return reading
        await asyncio.sleep(0.2)


async def _read(port: int, pid: int) -> Reading:
    headers = {"authorization": f"Bearer {KEY}", "connection": "close"}
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        status = (await client.get(f"http://127.0.0.1:{port}/router/status", headers=headers)).json()
    sizes: Reading = status["pools"]
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    rss_line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return {
        "rss_mb": int(rss_line.split()[1]) / 1024,
        "files": files,
        "files_beside_kept": files - sizes["instance_connections_kept"],
        **sizes,
    }


def show(found: dict[str, Any], console: Console) -> None:
    columns = ("requests", "rss_mb", "files", "instance_connections_kept", "tasks", "threads", "tickets", "waiting",
               "callers_remembered")  # fmt: skip
    table = Table(*(name.replace("_", " ") for name in columns), box=None)
    for one in found["readings"]:
        table.add_row(*(f"{one[name]:.1f}" if name == "rss_mb" else f"{one[name]:.0f}" for name in columns))
    console.print(table)
    console.print(found["seen"])
    console.print({name: value for name, value in found.items() if name not in ("seen", "readings")})


@click.command()
@click.option("--requests", default=AN_HOUR, show_default=True, type=click.IntRange(min=BATCHES * 8))
def main(requests: int) -> None:
    """Fails if a file, a task or a place is not given back; what memory does is for the reader to judge."""
    found = measure(requests, Console(stderr=True))
    show(found, Console(width=140))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(bool(found["not_back"]))


if __name__ == "__main__":
    main()
